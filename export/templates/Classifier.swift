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
    private let resized = $resize_resolution
    private let topValue: Float = $top_value

    init() throws {
        let url = Bundle(for: Classifier.self).url(forResource: $stem_literal, withExtension: "mlmodelc")!
        model = try MLModel(contentsOf: url)
        let metadata = model.modelDescription.metadata[.creatorDefinedKey] as! [String: String]
        labels = try JSONDecoder().decode([String].self, from: Data(metadata["dmask.class_names"]!.utf8))
    }

    /// The label of the highest score, and that score ($output).
    func classify(_ image: CGImage) throws -> (label: String, score: Float) {
        let scores = try self.scores(input(of: image))
        let best = scores.indices.max { scores[$$0] < scores[$$1] }!
        return (labels[best], scores[best])
    }

    /// The scores ($output) of the classes for an input of the model, channel by channel.
    func scores(_ input: [Float]) throws -> [Float] {
        let array = try MLMultiArray(shape: [1, 3, size as NSNumber, size as NSNumber], dataType: .float32)
        for (index, value) in input.enumerated() { array[index] = NSNumber(value: value) }
        let features = try MLDictionaryFeatureProvider(dictionary: ["input": array])
        let scores = try model.prediction(from: features).featureValue(for: "output")!.multiArrayValue!
        return (0..<scores.count).map { scores[$$0].floatValue }
    }

    /// What the model saw in training of the pixels as they are stored (an EXIF orientation is not applied): the
    /// shorter side scaled to `resized` pixels by a triangle filter, the middle square of `source` pixels, and of that
    /// every source/size-th pixel. Normalization is in the model.
    func input(of image: CGImage) -> [Float] {
        let (width, height) = (image.width, image.height)
        let context = CGContext(
            data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
            space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
        context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        let bytes = context.data!.assumingMemoryBound(to: UInt8.self)
        let columns = taps(width, resized * width / min(width, height))
        let rows = taps(height, resized * height / min(width, height))
        var result = [Float](repeating: 0, count: 3 * size * size)
        var narrow = [Float](repeating: 0, count: height * size)
        for channel in 0..<3 {
            for y in 0..<height {
                for x in 0..<size {
                    narrow[y * size + x] = level(columns[x]) { Float(bytes[4 * (y * width + $$0) + channel]) }
                }
            }
            for y in 0..<size {
                for x in 0..<size {
                    let value = level(rows[y]) { narrow[$$0 * size + x] }
                    result[(channel * size + y) * size + x] = value / 255 * topValue
                }
            }
        }
        return result
    }

    /// What one pixel of the result is made of: pixels from `first` on, with these weights.
    private struct Taps {
        let first: Int
        let weights: [Float]
    }

    /// A weighted sum, rounded to a whole level of 0...255.
    private func level(_ taps: Taps, _ value: (Int) -> Float) -> Float {
        var sum: Float = 0
        for (k, weight) in taps.weights.enumerated() { sum += weight * value(taps.first + k) }
        return min(max((sum + 0.5).rounded(.down), 0), 255)
    }

    private func taps(_ length: Int, _ scaled: Int) -> [Taps] {
        let offset = Int((Double(scaled - source) / 2).rounded(.toNearestOrEven))
        let scale = Double(length) / Double(scaled)
        let reach = max(scale, 1)
        return (0..<size).map { i in
            let center = (Double(offset + i * source / size) + 0.5) * scale
            let first = max(Int(center - reach + 0.5), 0)
            let end = min(Int(center + reach + 0.5), length)
            let weights = (first..<end).map { max(0, 1 - abs((Double($$0) + 0.5 - center) / reach)) }
            let sum = weights.reduce(0, +)
            return Taps(first: first, weights: weights.map { Float($$0 / sum) })
        }
    }
}
