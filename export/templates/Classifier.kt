// Classifies one image with $file (child $digest, "$name"), exported by dmask-mobile.
// Put $file into src/main/assets and add to build.gradle: implementation("com.google.ai.edge.litert:litert:1.4.0")
import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

class Classifier(context: Context) : AutoCloseable {
    private val interpreter = context.assets.open("$file").use { stream ->
        val bytes = stream.readBytes()
        val model = ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes)
        model.rewind()
        Interpreter(model, Interpreter.Options().setNumThreads(1))
    }

    /** The label of the highest score, and that score ($output). */
    fun classify(bitmap: Bitmap): Pair<String, Float> {
        val scores = arrayOf(FloatArray(LABELS.size))
        interpreter.run(pixels(bitmap), scores)
        val best = scores[0].indices.maxByOrNull { scores[0][it] }!!
        return LABELS[best] to scores[0][best]
    }

    // Normalization is in the model. It was trained on images of SOURCE pixels, of which it sees every SOURCE/SIZE-th.
    private fun pixels(bitmap: Bitmap): ByteBuffer {
        val scaled = Bitmap.createScaledBitmap(bitmap, SOURCE, SOURCE, true)
        val buffer = ByteBuffer.allocateDirect(4 * 3 * SIZE * SIZE).order(ByteOrder.nativeOrder())
        fun put(row: Int, column: Int, channel: Int) {
            val color = scaled.getPixel(column * SOURCE / SIZE, row * SOURCE / SIZE)
            buffer.putFloat(((color shr (16 - 8 * channel)) and 0xff) / 255f * TOP_VALUE)
        }
        if (CHANNELS_LAST) {
            for (row in 0 until SIZE) for (column in 0 until SIZE) for (channel in 0..2) put(row, column, channel)
        } else {
            for (channel in 0..2) for (row in 0 until SIZE) for (column in 0 until SIZE) put(row, column, channel)
        }
        buffer.rewind()
        return buffer
    }

    override fun close() = interpreter.close()

    private companion object {
        const val SIZE = $resolution
        const val SOURCE = $source_resolution
        const val TOP_VALUE = ${top_value}f
        const val CHANNELS_LAST = $channels_last
        val LABELS = listOf($labels)
    }
}
