// Classifies one image with $file (child $digest, "$name"), exported by dmask-mobile.
// Put $file into src/main/assets and add to build.gradle: implementation("com.google.ai.edge.litert:litert:1.4.0")
import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

class Classifier(context: Context) : AutoCloseable {
    private val interpreter = context.assets.open($file_literal).use { stream ->
        val bytes = stream.readBytes()
        val model = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes)
        model.rewind()
        Interpreter(model, Interpreter.Options().setNumThreads(1))
    }

    /** The label of the highest score, and that score ($output). */
    fun classify(bitmap: Bitmap): Pair<String, Float> {
        val scores = scores(input(bitmap))
        val best = scores.indices.maxByOrNull { scores[it] }!!
        return LABELS[best] to scores[best]
    }

    /** The scores ($output) of the classes for an input of the model. */
    fun scores(input: FloatArray): FloatArray {
        val buffer = ByteBuffer.allocateDirect(4 * input.size).order(ByteOrder.nativeOrder())
        buffer.asFloatBuffer().put(input)
        val scores = arrayOf(FloatArray(LABELS.size))
        interpreter.run(buffer, scores)
        return scores[0]
    }

    /** What the model takes for the pixels of a bitmap as they are stored: an EXIF orientation is not applied. */
    fun input(bitmap: Bitmap): FloatArray {
        val pixels = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        return Preprocessing.input(pixels, bitmap.width, bitmap.height)
    }

    override fun close() = interpreter.close()

    private companion object {
        val LABELS = listOf($labels)
    }
}

/**
 * Makes of a photograph what the model saw in training: the shorter side scaled to RESIZED pixels by a triangle filter,
 * the middle square of SOURCE pixels, and of that every SOURCE/SIZE-th pixel. Normalization is in the model.
 */
object Preprocessing {
    private const val SIZE = $resolution
    private const val SOURCE = $source_resolution
    private const val RESIZED = $resize_resolution
    private const val TOP_VALUE = ${top_value}f
    private const val CHANNELS_LAST = $channels_last

    /** What one pixel of the result is made of: pixels from [first] on, with these weights. */
    private class Taps(val first: Int, val weights: FloatArray)

    /** The input for pixels 0xAARRGGBB, row by row. */
    fun input(pixels: IntArray, width: Int, height: Int): FloatArray {
        val shorter = minOf(width, height)
        val columns = taps(width, (RESIZED.toLong() * width / shorter).toInt())
        val rows = taps(height, (RESIZED.toLong() * height / shorter).toInt())
        val result = FloatArray(3 * SIZE * SIZE)
        val narrow = FloatArray(height * SIZE)
        for (channel in 0..2) {
            val shift = 16 - 8 * channel
            for (y in 0 until height) for (x in 0 until SIZE) {
                val taps = columns[x]
                narrow[y * SIZE + x] = level(taps) { k -> ((pixels[y * width + k] shr shift) and 0xff).toFloat() }
            }
            for (y in 0 until SIZE) for (x in 0 until SIZE) {
                val value = level(rows[y]) { k -> narrow[k * SIZE + x] } / 255f * TOP_VALUE
                result[if (CHANNELS_LAST) (y * SIZE + x) * 3 + channel else (channel * SIZE + y) * SIZE + x] = value
            }
        }
        return result
    }

    /** A weighted sum, rounded to a whole level of 0..255. */
    private inline fun level(taps: Taps, value: (Int) -> Float): Float {
        var sum = 0f
        for (k in taps.weights.indices) sum += taps.weights[k] * value(taps.first + k)
        return Math.floor(sum + 0.5).toFloat().coerceIn(0f, 255f)
    }

    private fun taps(length: Int, scaled: Int): Array<Taps> {
        val offset = Math.rint((scaled - SOURCE) / 2.0).toInt()
        val scale = length.toDouble() / scaled
        val reach = maxOf(scale, 1.0)
        return Array(SIZE) { i ->
            val center = (offset + i * SOURCE / SIZE + 0.5) * scale
            val first = maxOf((center - reach + 0.5).toInt(), 0)
            val end = minOf((center + reach + 0.5).toInt(), length)
            val weights = DoubleArray(end - first) { k -> maxOf(0.0, 1 - Math.abs((first + k + 0.5 - center) / reach)) }
            val sum = weights.sum()
            Taps(first, FloatArray(weights.size) { k -> (weights[k] / sum).toFloat() })
        }
    }
}
