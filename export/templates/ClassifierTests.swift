// Put this into the unit test target of the app, with the folder exports/golden as a folder reference.
import CoreGraphics
import ImageIO
import XCTest

final class ClassifierTests: XCTestCase {
    private struct Golden: Decodable {
        let photo: String
        let input: String
        let input_tolerance: Float
        let output: [Float]
        let output_tolerance: Float
    }

    private func url(_ name: String) -> URL {
        Bundle(for: ClassifierTests.self).url(forResource: name, withExtension: nil, subdirectory: "golden")!
    }

    private func golden() throws -> Golden {
        try JSONDecoder().decode(Golden.self, from: Data(contentsOf: url($golden_literal)))
    }

    private func goldenInput() throws -> [Float] {
        try Data(contentsOf: url(golden().input)).withUnsafeBytes { Array($$0.bindMemory(to: Float.self)) }
    }

    func testModelGivesTheGoldenOutput() throws {
        let golden = try golden()
        let scores = try Classifier().scores(goldenInput())
        XCTAssertEqual(scores.count, golden.output.count)
        for (score, expected) in zip(scores, golden.output) {
            XCTAssertEqual(score, expected, accuracy: golden.output_tolerance)
        }
    }

    func testPhotoBecomesTheGoldenInput() throws {
        let golden = try golden()
        let photo = CGImageSourceCreateWithURL(url(golden.photo) as CFURL, nil)!
        let input = try Classifier().input(of: CGImageSourceCreateImageAtIndex(photo, 0, nil)!)
        let expected = try goldenInput()
        XCTAssertEqual(input.count, expected.count)
        let difference = zip(input, expected).map { abs($$0 - $$1) }.reduce(0, +) / Float(expected.count)
        XCTAssertLessThanOrEqual(difference, golden.input_tolerance)
    }
}
