// Classifies one image with $file (child $digest, "$name"), exported by dmask-mobile.
// Drag $file into the Xcode project; Xcode compiles it to $stem.mlmodelc.
import CoreGraphics
import CoreML
import Foundation

final class Classifier {
    private let model: MLModel
    private let labels: [String]
    private let size = $resolution
    private let source = $source_resolution
    private let topValue: Float = $top_value

    init() throws {
        let url = Bundle.main.url(forResource: "$stem", withExtension: "mlmodelc")!
        model = try MLModel(contentsOf: url)
        let metadata = model.modelDescription.metadata[.creatorDefinedKey] as! [String: String]
        labels = try JSONDecoder().decode([String].self, from: Data(metadata["dmask.class_names"]!.utf8))
    }

    /// The label of the highest score, and that score ($output).
    func classify(_ image: CGImage) throws -> (label: String, score: Float) {
        let features = try MLDictionaryFeatureProvider(dictionary: ["input": pixels(of: image)])
        let scores = try model.prediction(from: features).featureValue(for: "output")!.multiArrayValue!
        let best = (0..<labels.count).max { scores[$$0].floatValue < scores[$$1].floatValue }!
        return (labels[best], scores[best].floatValue)
    }

    // Normalization is in the model. It was trained on images of `source` pixels, of which it sees every source/size-th.
    private func pixels(of image: CGImage) throws -> MLMultiArray {
        let context = CGContext(
            data: nil, width: source, height: source, bitsPerComponent: 8, bytesPerRow: 4 * source,
            space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
        context.interpolationQuality = .high
        context.draw(image, in: CGRect(x: 0, y: 0, width: source, height: source))
        let bytes = context.data!.assumingMemoryBound(to: UInt8.self)
        let array = try MLMultiArray(shape: [1, 3, size as NSNumber, size as NSNumber], dataType: .float32)
        for channel in 0..<3 {
            for row in 0..<size {
                for column in 0..<size {
                    let place = 4 * ((row * source / size) * source + column * source / size) + channel
                    let value = Float(bytes[place]) / 255 * topValue
                    array[[0, channel as NSNumber, row as NSNumber, column as NSNumber]] = NSNumber(value: value)
                }
            }
        }
        return array
    }
}
