<?php
// A receiver of Tidings' webhooks: PHP 8.1 or later with pdo_sqlite.
//
//   WEBHOOK_SECRET=whsec_… PHP_CLI_SERVER_WORKERS=8 php -S 127.0.0.1:8080 receiver.php
//   TIDINGS_URL=https://… TIDINGS_TOKEN=… php receiver.php catch-up
//
// It verifies each webhook, acts on it once and ignores what is older than what it
// knows. Run catch-up after each start and every five minutes (cron): it reads what
// the receiver missed. In production, use PHP-FPM.
declare(strict_types=1);

const TOLERANCE = 5 * 60; // seconds
const BODY_LIMIT = 64 * 1024;
const MEMBERS = ['event', 'resource_type', 'resource_id', 'resource_url', 'timestamp'];
ini_set('display_errors', 'stderr');

// Your work. Be quick (put it into a queue); an exception makes Tidings try again.
function act(array $event): void
{
    $what = str_ends_with($event['event'], '.deleted') ? 'forget' : 'look again at'; // GET it with your token
    error_log("$what {$event['resource_url']}");
}

// Called if events expired before this receiver read them.
function read_everything_again(): void
{
    error_log('read all resources again');
}

// --- Storage: replace it by your database. One transaction contains the check, the work and the memory.
function database(): PDO
{
    $db = new PDO('sqlite:' . (getenv('STATE') ?: 'receiver.db'), options: [PDO::ATTR_TIMEOUT => 30]);
    $db->exec('PRAGMA journal_mode = WAL');
    $db->exec('CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY, observed INTEGER)');
    $db->exec('CREATE TABLE IF NOT EXISTS newest (resource TEXT PRIMARY KEY, version INTEGER, time TEXT)');
    $db->exec('CREATE TABLE IF NOT EXISTS feed (position TEXT)');
    return $db;
}

function query(PDO $db, string $sql, mixed ...$values): PDOStatement
{
    $statement = $db->prepare($sql);
    $statement->execute($values);
    return $statement;
}

function handle_once(PDO $db, array $event): void
{
    $resource = $event['resource_type'] . '/' . $event['resource_id'];
    $version = $event['version'];
    $time = rtrim($event['timestamp'], 'Z'); // without Z, it sorts as text
    $db->exec('BEGIN IMMEDIATE');
    try {
        if (query($db, 'INSERT OR IGNORE INTO handled VALUES (?, 0)', $event['id'])->rowCount() > 0) {
            $newest = query($db, 'SELECT version, time FROM newest WHERE resource = ?', $resource)->fetch();
            if (!$newest || !is_older($version, $time, (int) $newest['version'], $newest['time'])) {
                act($event);
                query($db, 'UPDATE handled SET observed = 1 WHERE id = ?', $event['id']);
                $time = max($time, $newest['time'] ?? '');
                query($db, 'REPLACE INTO newest VALUES (?, ?, ?)', $resource, $version, $time);
            }
        }
        $db->exec('COMMIT');
    } catch (Throwable $e) {
        $db->exec('ROLLBACK');
        throw $e;
    }
}

function is_older(int $version, string $time, int $newestVersion, string $newestTime): bool
{
    // Both must agree: versions start again after a restored backup, and clocks of servers differ.
    return $version > 0 && $version < $newestVersion && strcmp($time, $newestTime) <= 0;
}

// --- Verification
function is_authentic(string $body): bool
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $stamp = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if ($id === '' || !preg_match('/^\d{1,12}$/D', $stamp) || abs(time() - (int) $stamp) > TOLERANCE) {
        return false;
    }
    // Several secrets, separated by spaces, while one is being replaced.
    foreach (preg_split('/ +/', trim((string) getenv('WEBHOOK_SECRET'))) as $secret) {
        $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
        if ($key === false || strlen($key) < 24) {
            throw new Exception('WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes');
        }
        $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$stamp.$body", $key, true));
        foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $entry) {
            if (hash_equals($expected, $entry)) {
                return true;
            }
        }
    }
    return false;
}

function decode(string $body): ?array
{
    $event = json_decode($body, true);
    foreach (MEMBERS as $member) {
        if (!is_array($event) || !is_string($event[$member] ?? null) || $event[$member] === '') {
            return null; // not an event in the thin format
        }
    }
    $version = (int) ($_SERVER['HTTP_TIDINGS_RESOURCE_VERSION'] ?? 0);
    return ['id' => $_SERVER['HTTP_WEBHOOK_ID'], 'version' => $version] + $event;
}

function receive(): int
{
    if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
        return 405;
    }
    $body = file_get_contents('php://input');
    if (strlen($body) > BODY_LIMIT) {
        return 413;
    }
    if (strlen($body) < (int) ($_SERVER['CONTENT_LENGTH'] ?? 0)) { // the connection closed
        return 400;
    }
    if (!is_authentic($body)) {
        return 401;
    }
    $event = decode($body);
    if ($event === null) {
        return 400;
    }
    if ($event['event'] !== 'webhook.ping') { // an operator's test
        handle_once(database(), $event);
    }
    return 204;
}

// --- Catching up
function catch_up(PDO $db): void
{
    do {
        $after = query($db, 'SELECT position FROM feed')->fetchColumn();
        $url = getenv('TIDINGS_URL') . '/api/v1/events?limit=500' . ($after ? '&after=' . urlencode($after) : '');
        $text = file_get_contents($url, false, stream_context_create(['http' => [
            'header' => 'Authorization: Bearer ' . getenv('TIDINGS_TOKEN'), 'timeout' => 30, 'ignore_errors' => true,
        ]]));
        $page = json_decode((string) $text, true);
        if (is_array($page) && ($page['status'] ?? 0) === 410) {
            read_everything_again();
            $page = ['items' => [], 'next' => $page['after']];
            $more = true;
        } elseif (!isset($page['items'])) {
            throw new Exception('catching up: ' . ($page['detail'] ?? 'no answer'));
        } else {
            $more = $page['items'] !== [] || $page['more'];
        }
        foreach ($page['items'] as $event) {
            handle_once($db, ['version' => $event['resource_version']] + $event);
        }
        $db->exec('BEGIN IMMEDIATE');
        $db->exec('DELETE FROM feed');
        query($db, 'INSERT INTO feed VALUES (?)', $page['next']);
        $db->exec('COMMIT');
    } while ($more);
}

if (PHP_SAPI === 'cli') {
    catch_up(database());
    exit;
}
if (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) === '/handled' && getenv('OBSERVE')) { // for tests alone
    $ids = query(database(), 'SELECT id FROM handled WHERE observed')->fetchAll(PDO::FETCH_COLUMN);
    echo json_encode(['handled' => $ids]);
    return;
}
try {
    http_response_code(receive());
} catch (Throwable $e) {
    error_log('webhook: ' . $e->getMessage());
    http_response_code(500);
}
