package hello;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.commons.codec.language.ColognePhonetic;
import org.apache.commons.codec.language.DoubleMetaphone;
import org.apache.commons.codec.language.Soundex;

/** Reads names as lines of JSON and answers with the codes of how they sound. */
public final class Sounds {
    private static final Gson GSON = new Gson();

    private Sounds() { }

    private static JsonObject answer(String line) {
        JsonObject given = new JsonObject();
        try {
            String name = GSON.fromJson(line, JsonObject.class).get("name").getAsString();
            given.addProperty("soundex", Soundex.US_ENGLISH.encode(name));
            given.addProperty("metaphone", new DoubleMetaphone().encode(name));
            given.addProperty("cologne", new ColognePhonetic().encode(name));
        } catch (JsonParseException | IllegalArgumentException | NullPointerException problem) {
            given = new JsonObject();
            given.addProperty("error", "a name in Latin letters is needed");
        }
        return given;
    }

    public static void main(String[] words) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            System.out.println(GSON.toJson(answer(line)));
            System.out.flush();
        }
    }
}
