// Put this into src/androidTest and exports/golden into src/androidTest/assets.
import android.graphics.BitmapFactory
import androidx.test.platform.app.InstrumentationRegistry
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Test

class ClassifierTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()
    private val assets = instrumentation.context.assets
    private val golden = JSONObject(String(read($golden_literal)))
    private val input = ByteBuffer.wrap(read(golden.getString("input"))).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        .let { buffer -> FloatArray(buffer.remaining()) { buffer.get(it) } }

    @Test
    fun modelGivesTheGoldenOutput() = Classifier(instrumentation.targetContext).use { classifier ->
        val expected = golden.getJSONArray("output")
        val tolerance = golden.getDouble("output_tolerance")
        classifier.scores(input).forEachIndexed { k, score ->
            assertEquals(expected.getDouble(k), score.toDouble(), tolerance)
        }
    }

    @Test
    fun photoBecomesTheGoldenInput() = Classifier(instrumentation.targetContext).use { classifier ->
        val options = BitmapFactory.Options().apply { inScaled = false }
        val file = assets.open("golden/" + golden.getString("photo"))
        val photo = file.use { BitmapFactory.decodeStream(it, null, options)!! }
        val difference = classifier.input(photo).zip(input) { a, b -> Math.abs(a - b).toDouble() }.average()
        assertEquals(0.0, difference, golden.getDouble("input_tolerance"))
    }

    private fun read(name: String) = assets.open("golden/" + name).use { it.readBytes() }
}
