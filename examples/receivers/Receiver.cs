// A receiver of Tidings' webhooks: C# 7 or later, standard library only, for .NET 5 or later and Mono 6.
//
//   WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… dotnet run Receiver.cs
//
// (.NET 10; before, this is Program.cs of "dotnet new console". With Mono:
// mcs -r:System.Net.Http,System.Runtime.Serialization,System.Xml,System.Xml.Linq Receiver.cs && mono Receiver.exe)
//
// It verifies each webhook, acts on it once, ignores what is older than what it
// knows, and at the start (and every five minutes) reads what it missed.
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Runtime.Serialization.Json;
using System.Security.Cryptography;
using System.Text;
using System.Threading.Tasks;
using System.Xml;
using System.Xml.Linq;

class Event
{
    public string Id, Name, Resource, Url, Time;
    public long Version;
}

static class Receiver
{
    const int Tolerance = 5 * 60; // seconds
    const int BodyLimit = 64 * 1024, DrainLimit = 4 * 1024 * 1024;
    static readonly TimeSpan SlowestBody = TimeSpan.FromSeconds(30);
    static readonly string[] members = { "event", "resource_type", "resource_id", "resource_url", "timestamp" };
    static readonly List<string> observed = new List<string>(); // what Act was called with; for tests

    static byte[][] keys; // one for each secret

    // Your work. Be quick (put it into a queue); an exception makes Tidings try again.
    static void Act(Event e) => Console.WriteLine(e.Name.EndsWith(".deleted", StringComparison.Ordinal)
        ? $"forget {e.Url}"
        : $"look again at {e.Url}"); // GET it with your token

    // Called if events expired before this receiver read them.
    static void ReadEverythingAgain() => Console.WriteLine("read all resources again");

    // --- Storage: replace it by your database. This is a journal that is read at the start.
    static readonly string file = Env("STATE", "receiver.journal");
    static readonly object gate = new object();
    static readonly HashSet<string> handled = new HashSet<string>();
    static readonly Dictionary<string, (long Version, string Time)> newest =
        new Dictionary<string, (long Version, string Time)>();
    static string position = "";

    static void Remember(string[] entry)
    {
        if (entry[0] == "position") { position = entry[1]; return; }
        handled.Add(entry[1]);
        if (entry[0] == "newest") newest[entry[2]] = (long.Parse(entry[3], CultureInfo.InvariantCulture), entry[4]);
    }

    static void Save(params string[] entry)
    {
        File.AppendAllText(file, string.Join("\t", entry) + "\n");
        Remember(entry);
    }

    // The check, the work and the memory are one step.
    static void HandleOnce(Event e)
    {
        lock (gate)
        {
            if (handled.Contains(e.Id)) return;
            var known = newest.TryGetValue(e.Resource, out var n);
            // Both must agree: versions start again after a restored backup, and clocks of servers differ.
            if (known && e.Version > 0 && e.Version < n.Version && string.CompareOrdinal(e.Time, n.Time) <= 0)
            {
                Save("handled", e.Id);
                return;
            }
            Act(e);
            observed.Add(e.Id);
            var time = known && string.CompareOrdinal(n.Time, e.Time) > 0 ? n.Time : e.Time;
            Save("newest", e.Id, e.Resource, e.Version.ToString(CultureInfo.InvariantCulture), time);
        }
    }

    // --- Verification
    static byte[] Key(string secret)
    {
        var key = Convert.FromBase64String(secret.StartsWith("whsec_", StringComparison.Ordinal)
            ? secret.Substring(6) : secret);
        if (key.Length < 24)
            throw new FormatException("WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes");
        return key;
    }

    static bool IsAuthentic(Func<string, string> header, byte[] body)
    {
        string id = header("webhook-id"), stamp = header("webhook-timestamp");
        if (id == "" || !long.TryParse(stamp, NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)
            || Math.Abs((decimal)DateTimeOffset.UtcNow.ToUnixTimeSeconds() - seconds) > Tolerance) return false;
        var content = Encoding.UTF8.GetBytes($"{id}.{stamp}.").Concat(body).ToArray();
        var entries = header("webhook-signature").Split(' ').Select(Encoding.UTF8.GetBytes).ToArray();
        return keys.Any(key =>
        {
            using (var mac = new HMACSHA256(key))
            {
                var expected = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(mac.ComputeHash(content)));
                return entries.Any(entry => CryptographicOperations.FixedTimeEquals(entry, expected));
            }
        });
    }

    // JSON as elements, each with the attribute type: object, array, string, number, boolean or null.
    static XElement Parse(byte[] json)
    {
        using (var reader = JsonReaderWriterFactory.CreateJsonReader(json, XmlDictionaryReaderQuotas.Max))
            return XElement.Load(reader);
    }

    static Event Decode(string id, string version, XElement json)
    {
        if (!members.All(m => (string)json.Element(m)?.Attribute("type") == "string" && json.Element(m).Value != ""))
            throw new FormatException("not an event in the thin format");
        long.TryParse(version, NumberStyles.None, CultureInfo.InvariantCulture, out var number);
        return new Event
        {
            Id = id, Version = number, Name = json.Element("event").Value, Url = json.Element("resource_url").Value,
            Resource = json.Element("resource_type").Value + "/" + json.Element("resource_id").Value,
            Time = json.Element("timestamp").Value.TrimEnd('Z'), // without Z, it sorts as text
        };
    }

    // Receive returns the status of the answer. It knows nothing of the server below: in ASP.NET Core,
    // read the body yourself and pass name => request.Headers[name].ToString().
    static int Receive(Func<string, string> header, byte[] body)
    {
        if (body.Length > BodyLimit) return 413;
        if (!IsAuthentic(header, body)) return 401;
        Event e;
        try { e = Decode(header("webhook-id"), header("tidings-resource-version"), Parse(body)); }
        catch (Exception) { return 400; }
        if (e.Name == "webhook.ping") return 204; // an operator's test
        try { HandleOnce(e); }
        catch (Exception x)
        {
            Console.WriteLine($"{e.Name}: {x.Message}");
            return 500;
        }
        return 204;
    }

    // --- The server
    static async Task Answer(HttpListenerContext context)
    {
        var request = context.Request;
        var response = context.Response;
        try
        {
            var answer = new byte[0];
            if (request.Url.AbsolutePath == "/webhook")
            {
                var body = ReadBody(request.InputStream); // even if it is too large, so that the sender gets the answer
                if (await Task.WhenAny(body, Task.Delay(SlowestBody)) != body)
                {
                    response.Abort();
                    return;
                }
                response.StatusCode = request.HttpMethod != "POST" ? 405
                    : Receive(name => request.Headers[name] ?? "", await body);
            }
            else if (request.Url.AbsolutePath == "/handled" && Env("OBSERVE", "") != "") // for tests alone
                lock (gate) answer = Encoding.UTF8.GetBytes(
                    "{\"handled\":[" + string.Join(",", observed.Select(id => $"\"{id}\"")) + "]}");
            else response.StatusCode = 404;
            response.ContentLength64 = answer.Length;
            response.OutputStream.Write(answer, 0, answer.Length);
            response.Close();
        }
        catch (Exception x) when (x is HttpListenerException || x is IOException || x is ObjectDisposedException)
        {
            response.Abort(); // the connection closed
        }
    }

    static async Task<byte[]> ReadBody(Stream stream)
    {
        var body = new MemoryStream();
        var piece = new byte[16 * 1024];
        for (int n; body.Length < DrainLimit && (n = await stream.ReadAsync(piece, 0, piece.Length)) > 0;)
            body.Write(piece, 0, n);
        return body.ToArray();
    }

    // --- Catching up
    static async Task CatchUp(HttpClient client)
    {
        while (true)
        {
            var after = position == "" ? "" : "&after=" + Uri.EscapeDataString(position);
            using (var response = await client.GetAsync($"{Env("TIDINGS_URL", "")}/api/v1/events?limit=500{after}"))
            {
                var page = Parse(await response.Content.ReadAsByteArrayAsync());
                if (response.StatusCode == HttpStatusCode.Gone)
                {
                    ReadEverythingAgain();
                    MoveTo(page.Element("after").Value);
                    continue;
                }
                response.EnsureSuccessStatusCode();
                var items = page.Element("items").Elements().ToArray();
                foreach (var item in items)
                    HandleOnce(Decode(item.Element("id").Value, item.Element("resource_version").Value, item));
                MoveTo(page.Element("next").Value);
                if (items.Length == 0 && page.Element("more").Value == "false") return;
            }
        }
    }

    static void MoveTo(string next)
    {
        lock (gate)
            if (next != position) Save("position", next);
    }

    static async Task CatchUpForever()
    {
        var client = new HttpClient { Timeout = TimeSpan.FromSeconds(30) };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Env("TIDINGS_TOKEN", ""));
        while (true)
        {
            try { await CatchUp(client); }
            catch (Exception x) { Console.WriteLine($"catching up: {x.Message}"); }
            await Task.Delay(TimeSpan.FromMinutes(5));
        }
    }

    static string Env(string name, string otherwise) => Environment.GetEnvironmentVariable(name) ?? otherwise;

    static void Main()
    {
        // Several secrets, separated by spaces, while one is being replaced.
        keys = Env("WEBHOOK_SECRET", "").Split(' ').Where(s => s != "").DefaultIfEmpty("").Select(Key).ToArray();
        if (File.Exists(file))
            foreach (var line in File.ReadLines(file)) Remember(line.Split('\t'));
        var listener = new HttpListener();
        listener.Prefixes.Add("http://" + Env("LISTEN", "127.0.0.1:8080") + "/");
        listener.Start();
        if (Env("TIDINGS_URL", "") != "") _ = Task.Run(CatchUpForever);
        while (true)
        {
            var context = listener.GetContext();
            _ = Task.Run(() => Answer(context));
        }
    }
}
