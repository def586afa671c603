// A receiver of Tidings' webhooks: Java 17 or later, standard library only.
//
//   WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… java Receiver.java
//
// It verifies each webhook, acts on it once, ignores what is older than what it
// knows, and at the start (and every five minutes) reads what it missed.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    static final long TOLERANCE = 5 * 60; // seconds
    static final int BODY_LIMIT = 64 * 1024, DRAIN_LIMIT = 4 * 1024 * 1024;
    static final List<String> MEMBERS =
            List.of("event", "resource_type", "resource_id", "resource_url", "timestamp");
    // Several secrets, separated by spaces, while one is being replaced.
    static final List<SecretKeySpec> keys =
            Stream.of(env("WEBHOOK_SECRET", "").strip().split(" +")).map(Receiver::key).toList();
    static final List<String> observed = new ArrayList<>(); // what act was called with; for tests

    record Event(String id, String name, String resource, String url, String time, long version) {}

    /** Your work. Be quick (put it into a queue); an exception makes Tidings try again. */
    static void act(Event e) {
        String what = e.name().endsWith(".deleted") ? "forget " : "look again at "; // GET it with your token
        System.out.println(what + e.url());
    }

    /** Called if events expired before this receiver read them. */
    static void readEverythingAgain() {
        System.out.println("read all resources again");
    }

    // --- Storage: replace it by your database. This is a journal that is read at the start.
    static final Path journal = Path.of(env("STATE", "receiver.journal"));
    static final Set<String> handled = new HashSet<>();
    static final Map<String, Event> newest = new HashMap<>();
    static String position = "";

    static void load() throws IOException {
        if (Files.exists(journal)) {
            for (String line : Files.readAllLines(journal)) remember(line.split("\t", -1));
        }
    }

    static void remember(String[] entry) {
        switch (entry[0]) {
            case "position" -> position = entry[1];
            case "handled" -> handled.add(entry[1]);
            case "newest" -> {
                handled.add(entry[1]);
                newest.put(entry[2], new Event(entry[1], "", entry[2], "", entry[4], Long.parseLong(entry[3])));
            }
            default -> throw new IllegalStateException("unknown entry in " + journal);
        }
    }

    static void save(String... entry) throws IOException {
        Files.writeString(journal, String.join("\t", entry) + "\n", StandardOpenOption.CREATE,
                StandardOpenOption.APPEND);
        remember(entry);
    }

    /** The check, the work and the memory are one step. */
    static synchronized void handleOnce(Event e) throws IOException {
        if (handled.contains(e.id())) return;
        Event known = newest.get(e.resource());
        // Both must agree: versions start again after a restored backup, and clocks of servers differ.
        if (known != null && e.version() > 0 && e.version() < known.version()
                && e.time().compareTo(known.time()) <= 0) {
            save("handled", e.id());
            return;
        }
        act(e);
        observed.add(e.id());
        String time = known != null && known.time().compareTo(e.time()) > 0 ? known.time() : e.time();
        save("newest", e.id(), e.resource(), Long.toString(e.version()), time);
    }

    // --- Verification
    static boolean isAuthentic(HttpExchange x, byte[] body) throws GeneralSecurityException {
        String id = header(x, "webhook-id"), stamp = header(x, "webhook-timestamp");
        if (id.isEmpty() || !stamp.matches("[0-9]{1,12}")
                || Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(stamp)) > TOLERANCE) return false;
        for (SecretKeySpec key : keys) {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(key);
            mac.update((id + "." + stamp + ".").getBytes(StandardCharsets.UTF_8));
            byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes();
            for (String entry : header(x, "webhook-signature").split(" ")) {
                if (MessageDigest.isEqual(expected, entry.getBytes())) return true;
            }
        }
        return false;
    }

    static SecretKeySpec key(String secret) {
        byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
        if (key.length < 24) {
            throw new IllegalArgumentException("WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes");
        }
        return new SecretKeySpec(key, "HmacSHA256");
    }

    static String header(HttpExchange x, String name) {
        String value = x.getRequestHeaders().getFirst(name);
        return value == null ? "" : value;
    }

    static Event decode(String id, String version, Object json) {
        if (!(json instanceof Map<?, ?> m)
                || !MEMBERS.stream().allMatch(name -> m.get(name) instanceof String s && !s.isEmpty())) {
            throw new IllegalArgumentException("not an event in the thin format");
        }
        String time = ((String) m.get("timestamp")).replaceFirst("Z$", ""); // without Z, it sorts as text
        return new Event(id, (String) m.get("event"), m.get("resource_type") + "/" + m.get("resource_id"),
                (String) m.get("resource_url"), time, version.matches("[0-9]{1,18}") ? Long.parseLong(version) : 0);
    }

    static int receive(HttpExchange x) throws Exception {
        byte[] body = x.getRequestBody().readNBytes(DRAIN_LIMIT); // the sender gets the answer even if it is too large
        if (!x.getRequestMethod().equals("POST")) return 405;
        if (body.length > BODY_LIMIT) return 413;
        if (!isAuthentic(x, body)) return 401;
        Event e;
        try {
            e = decode(header(x, "webhook-id"), header(x, "tidings-resource-version"), new Json(body).document());
        } catch (IllegalArgumentException malformed) {
            return 400;
        }
        if (!e.name().equals("webhook.ping")) handleOnce(e); // a ping is an operator's test
        return 204;
    }

    static void serve(HttpExchange x) throws IOException {
        int status;
        try {
            status = receive(x);
        } catch (Exception e) {
            System.out.println("webhook: " + e);
            status = 500;
        }
        x.sendResponseHeaders(status, -1);
        x.close();
    }

    static void serveHandled(HttpExchange x) throws IOException {
        String ids;
        synchronized (Receiver.class) {
            ids = observed.stream().map(id -> '"' + id + '"').collect(Collectors.joining(","));
        }
        byte[] body = ("{\"handled\":[" + ids + "]}").getBytes();
        x.sendResponseHeaders(200, body.length);
        x.getResponseBody().write(body);
        x.close();
    }

    // --- Catching up
    static void catchUp() throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        while (true) {
            String after = position.isEmpty() ? "" : "&after=" + URLEncoder.encode(position, StandardCharsets.UTF_8);
            URI url = URI.create(System.getenv("TIDINGS_URL") + "/api/v1/events?limit=500" + after);
            HttpResponse<byte[]> response = client.send(HttpRequest.newBuilder(url)
                            .header("Authorization", "Bearer " + System.getenv("TIDINGS_TOKEN"))
                            .timeout(Duration.ofSeconds(30)).build(),
                    HttpResponse.BodyHandlers.ofByteArray());
            Map<?, ?> page = (Map<?, ?>) new Json(response.body()).document();
            if (response.statusCode() == 410) {
                readEverythingAgain();
                moveTo((String) page.get("after"));
                continue;
            }
            if (response.statusCode() != 200) throw new IOException(response.statusCode() + " " + page.get("detail"));
            List<?> items = (List<?>) page.get("items");
            for (Object item : items) {
                Map<?, ?> m = (Map<?, ?>) item;
                handleOnce(decode((String) m.get("id"), (String) m.get("resource_version"), m));
            }
            moveTo((String) page.get("next"));
            if (items.isEmpty() && page.get("more").equals("false")) return;
        }
    }

    static synchronized void moveTo(String next) throws IOException {
        if (!next.equals(position)) save("position", next);
    }

    public static void main(String[] args) throws IOException {
        load();
        String[] listen = env("LISTEN", "127.0.0.1:8080").split(":(?=[0-9]+$)");
        HttpServer server = HttpServer.create(new InetSocketAddress(listen[0], Integer.parseInt(listen[1])), 128);
        server.createContext("/webhook", Receiver::serve);
        if (System.getenv("OBSERVE") != null) server.createContext("/handled", Receiver::serveHandled); // for tests
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        if (System.getenv("TIDINGS_URL") != null) {
            Executors.newSingleThreadScheduledExecutor().scheduleWithFixedDelay(() -> {
                try {
                    catchUp();
                } catch (Exception e) {
                    System.out.println("catching up: " + e);
                }
            }, 0, 5, TimeUnit.MINUTES);
        }
    }

    static String env(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    /** A JSON reader, because Java has none; numbers, true, false and null are kept as text. Or use a library. */
    static class Json {
        private final String text;
        private int at;

        Json(byte[] text) {
            this.text = new String(text, StandardCharsets.UTF_8);
        }

        Object document() {
            Object value = value(0);
            if (space() != 0) throw new IllegalArgumentException("JSON: unexpected text at the end");
            return value;
        }

        private char space() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
            return at < text.length() ? text.charAt(at) : 0;
        }

        private boolean take(char c) {
            if (space() != c) return false;
            at++;
            return true;
        }

        private void need(char c) {
            if (!take(c)) throw new IllegalArgumentException("JSON: expected " + c + " at " + at);
        }

        private Object value(int depth) {
            if (depth > 20) throw new IllegalArgumentException("JSON: nested too deeply");
            if (take('{')) {
                Map<String, Object> object = new HashMap<>();
                while (!take('}')) {
                    if (!object.isEmpty()) need(',');
                    need('"');
                    String name = string();
                    need(':');
                    object.put(name, value(depth + 1));
                }
                return object;
            }
            if (take('[')) {
                List<Object> list = new ArrayList<>();
                while (!take(']')) {
                    if (!list.isEmpty()) need(',');
                    list.add(value(depth + 1));
                }
                return list;
            }
            if (take('"')) return string();
            int from = at;
            while (at < text.length() && Character.isLetterOrDigit(text.charAt(at)) || at < text.length()
                    && "+-.".indexOf(text.charAt(at)) >= 0) at++;
            String word = text.substring(from, at);
            if (word.matches("true|false|-?[0-9]+(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) return word;
            if (word.equals("null")) return null;
            throw new IllegalArgumentException("JSON: unexpected text at " + from);
        }

        private String string() {
            StringBuilder s = new StringBuilder();
            while (at < text.length()) {
                char c = text.charAt(at++);
                if (c == '"') return s.toString();
                if (c != '\\') {
                    s.append(c);
                    continue;
                }
                char escaped = at < text.length() ? text.charAt(at++) : 0;
                switch (escaped) {
                    case '"', '\\', '/' -> s.append(escaped);
                    case 'b' -> s.append('\b');
                    case 'f' -> s.append('\f');
                    case 'n' -> s.append('\n');
                    case 'r' -> s.append('\r');
                    case 't' -> s.append('\t');
                    case 'u' -> {
                        if (at + 4 > text.length()) throw new IllegalArgumentException("JSON: string ends early");
                        s.append((char) Integer.parseInt(text.substring(at, at += 4), 16));
                    }
                    default -> throw new IllegalArgumentException("JSON: unknown escape at " + at);
                }
            }
            throw new IllegalArgumentException("JSON: string ends early");
        }
    }
}
