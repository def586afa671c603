// A receiver of Tidings' webhooks: C# 12 on ASP.NET Core 8 or later (dotnet new web, then this file
// as Program.cs).
//
//   WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… dotnet run
//
// It verifies each webhook, acts on it once, ignores what is older than what it
// knows, and at the start (and every five minutes) reads what it missed.
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

const int Tolerance = 5 * 60; // seconds
const int BodyLimit = 64 * 1024;
string[] members = ["event", "resource_type", "resource_id", "resource_url", "timestamp"];
var observed = new List<string>(); // what Act was called with; for tests

// Several secrets, separated by spaces, while one is being replaced.
var keys = Env("WEBHOOK_SECRET", "").Split(' ', StringSplitOptions.RemoveEmptyEntries)
    .Select(s => Convert.FromBase64String(s.StartsWith("whsec_", StringComparison.Ordinal) ? s[6..] : s)).ToArray();
if (keys.Length == 0 || keys.Any(key => key.Length < 24))
    throw new InvalidOperationException("WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes");

// Your work. Be quick (put it into a queue); an exception makes Tidings try again.
void Act(Event e) => Console.WriteLine(e.Name.EndsWith(".deleted", StringComparison.Ordinal)
    ? $"forget {e.Url}"
    : $"look again at {e.Url}"); // GET it with your token

// Called if events expired before this receiver read them.
void ReadEverythingAgain() => Console.WriteLine("read all resources again");

// --- Storage: replace it by your database. This is a journal that is read at the start.
var file = Env("STATE", "receiver.journal");
var gate = new object();
var handled = new HashSet<string>();
var newest = new Dictionary<string, (long Version, string Time)>();
var position = "";
if (File.Exists(file))
    foreach (var line in File.ReadLines(file)) Remember(line.Split('\t'));

void Remember(string[] entry)
{
    if (entry[0] == "position") { position = entry[1]; return; }
    handled.Add(entry[1]);
    if (entry[0] == "newest") newest[entry[2]] = (long.Parse(entry[3], CultureInfo.InvariantCulture), entry[4]);
}

void Save(params string[] entry)
{
    File.AppendAllText(file, string.Join('\t', entry) + "\n");
    Remember(entry);
}

// The check, the work and the memory are one step.
void HandleOnce(Event e)
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
bool IsAuthentic(HttpRequest request, byte[] body)
{
    string id = request.Headers["webhook-id"].ToString(), stamp = request.Headers["webhook-timestamp"].ToString();
    if (id == "" || !long.TryParse(stamp, NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)
        || Math.Abs((decimal)DateTimeOffset.UtcNow.ToUnixTimeSeconds() - seconds) > Tolerance) return false;
    byte[] content = [.. Encoding.UTF8.GetBytes($"{id}.{stamp}."), .. body];
    var entries = request.Headers["webhook-signature"].ToString().Split(' ').Select(Encoding.UTF8.GetBytes).ToArray();
    return keys.Any(key =>
    {
        var expected = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(HMACSHA256.HashData(key, content)));
        return entries.Any(entry => CryptographicOperations.FixedTimeEquals(entry, expected));
    });
}

Event Decode(string id, long version, JsonElement json)
{
    if (json.ValueKind != JsonValueKind.Object || !members.All(m => json.TryGetProperty(m, out var v)
            && v.ValueKind == JsonValueKind.String && v.GetString() != ""))
        throw new JsonException("not an event in the thin format");
    string Text(string m) => json.GetProperty(m).GetString()!;
    var time = Text("timestamp").TrimEnd('Z'); // without Z, it sorts as text
    return new Event(id, Text("event"), $"{Text("resource_type")}/{Text("resource_id")}", Text("resource_url"), time,
        version);
}

async Task<int> Receive(HttpRequest request)
{
    using var buffer = new MemoryStream();
    await request.Body.CopyToAsync(buffer); // even if it is too large, so that the sender gets the answer
    var body = buffer.ToArray();
    if (body.Length > BodyLimit) return 413;
    if (!IsAuthentic(request, body)) return 401;
    Event e;
    try
    {
        using var json = JsonDocument.Parse(body);
        _ = long.TryParse(request.Headers["tidings-resource-version"].ToString(), NumberStyles.None,
            CultureInfo.InvariantCulture, out var version);
        e = Decode(request.Headers["webhook-id"].ToString(), version, json.RootElement);
    }
    catch (Exception x) when (x is JsonException or InvalidOperationException) // the latter: strings that are no text
    {
        return 400;
    }
    if (e.Name != "webhook.ping") HandleOnce(e); // a ping is an operator's test
    return 204;
}

// --- Catching up
async Task CatchUp(HttpClient client)
{
    while (true)
    {
        var after = position == "" ? "" : "&after=" + Uri.EscapeDataString(position);
        using var response = await client.GetAsync($"{Env("TIDINGS_URL", "")}/api/v1/events?limit=500{after}");
        using var page = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
        if (response.StatusCode == HttpStatusCode.Gone)
        {
            ReadEverythingAgain();
            MoveTo(page.RootElement.GetProperty("after").GetString()!);
            continue;
        }
        response.EnsureSuccessStatusCode();
        var items = page.RootElement.GetProperty("items");
        foreach (var item in items.EnumerateArray())
        {
            var version = item.GetProperty("resource_version").GetInt64();
            HandleOnce(Decode(item.GetProperty("id").GetString()!, version, item));
        }
        MoveTo(page.RootElement.GetProperty("next").GetString()!);
        if (items.GetArrayLength() == 0) return;
    }
}

void MoveTo(string next)
{
    lock (gate)
        if (next != position) Save("position", next);
}

var builder = WebApplication.CreateBuilder(args);
builder.Logging.ClearProviders();
builder.WebHost.UseUrls("http://" + Env("LISTEN", "127.0.0.1:8080"));
builder.WebHost.ConfigureKestrel(o => o.Limits.MaxRequestBodySize = 4 * 1024 * 1024);
var app = builder.Build();
app.MapPost("/webhook", async (HttpContext context) =>
{
    try
    {
        context.Response.StatusCode = await Receive(context.Request);
    }
    catch (Exception e) when (e is not BadHttpRequestException)
    {
        Console.WriteLine($"webhook: {e.Message}");
        context.Response.StatusCode = 500;
    }
});
if (Env("OBSERVE", "") != "") // for tests alone
    app.MapGet("/handled", () => { lock (gate) return Results.Json(new { handled = observed.ToArray() }); });

if (Env("TIDINGS_URL", "") != "")
{
    _ = Task.Run(async () =>
    {
        using var client = new HttpClient { Timeout = TimeSpan.FromSeconds(30) };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Env("TIDINGS_TOKEN", ""));
        while (true)
        {
            try { await CatchUp(client); }
            catch (Exception e) { Console.WriteLine($"catching up: {e.Message}"); }
            await Task.Delay(TimeSpan.FromMinutes(5));
        }
    });
}
app.Run();

static string Env(string name, string otherwise) => Environment.GetEnvironmentVariable(name) ?? otherwise;

record Event(string Id, string Name, string Resource, string Url, string Time, long Version);
