# A receiver of Tidings' webhooks: Ruby 3.0 or later with webrick (gem install webrick,
# or the Debian package ruby-webrick).
#
#   WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… ruby receiver.rb
#
# It verifies each webhook, acts on it once, ignores what is older than what it
# knows, and at the start (and every five minutes) reads what it missed.
require "json"
require "net/http"
require "openssl"
require "webrick"

# Several secrets, separated by spaces, while one is being replaced.
KEYS = ENV.fetch("WEBHOOK_SECRET").split.map { |s| s.delete_prefix("whsec_").unpack1("m0") }
if KEYS.empty? || KEYS.any? { |key| key.bytesize < 24 }
  abort "WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes"
end
HOST, PORT = ENV.fetch("LISTEN", "127.0.0.1:8080").split(/:(?=\d+\z)/)
TOLERANCE = 5 * 60 # seconds
BODY_LIMIT = 64 * 1024
MEMBERS = %w[event resource_type resource_id resource_url timestamp].freeze
OBSERVED = [] # what act was called with; for tests
$stdout.sync = true

# Your work. Be quick (put it into a queue); an exception makes Tidings try again.
def act(event)
  if event["event"].end_with?(".deleted")
    puts "forget #{event["resource_url"]}"
  else
    puts "look again at #{event["resource_url"]}" # GET it with your token
  end
end

# Called if events expired before this receiver read them.
def read_everything_again
  puts "read all resources again"
end

# --- Storage: replace it by your database. This is a journal that is read at the start.
class Storage
  attr_reader :position

  def initialize(path)
    @lock, @handled, @newest = Mutex.new, {}, {}
    File.foreach(path) { |line| remember(JSON.parse(line)) } if File.exist?(path)
    @journal = File.open(path, "a")
    @journal.sync = true
  end

  def position=(position)
    @lock.synchronize { save("position" => position) }
  end

  # handle_once makes the check, the work and the memory one step.
  def handle_once(event)
    @lock.synchronize do
      next if @handled[event["id"]]

      resource = "#{event["resource_type"]}/#{event["resource_id"]}"
      version, time = event["version"], event["timestamp"].delete_suffix("Z") # without Z, it sorts as text
      newest_version, newest_time = @newest[resource]
      # Both must agree: versions start again after a restored backup, and clocks of servers differ.
      if newest_time && version.positive? && version < newest_version && time <= newest_time
        save("id" => event["id"])
      else
        act(event)
        OBSERVED << event["id"]
        save("id" => event["id"], "resource" => resource, "newest" => [version, [time, newest_time].compact.max])
      end
    end
  end

  private

  def remember(entry)
    @position = entry["position"] if entry["position"]
    @handled[entry["id"]] = true if entry["id"]
    @newest[entry["resource"]] = entry["newest"] if entry["resource"]
  end

  def save(entry)
    @journal.puts(JSON.generate(entry))
    remember(entry)
  end
end

STORAGE = Storage.new(ENV.fetch("STATE", "receiver.journal"))

# --- Verification
def authentic?(request, body)
  id, stamp = request["webhook-id"].to_s, request["webhook-timestamp"].to_s
  return false if id.empty? || !stamp.match?(/\A\d{1,12}\z/) || (Time.now.to_i - stamp.to_i).abs > TOLERANCE

  entries = request["webhook-signature"].to_s.split
  KEYS.any? do |key|
    mac = OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{stamp}.".b + body)
    entries.any? { |entry| OpenSSL.secure_compare(entry, "v1,#{[mac].pack("m0")}") }
  end
end

def decode(request, body)
  event = JSON.parse(body.force_encoding("UTF-8"))
  unless event.is_a?(Hash) && MEMBERS.all? { |m| event[m].is_a?(String) && !event[m].empty? }
    raise JSON::ParserError, "not an event in the thin format"
  end

  event.merge("id" => request["webhook-id"], "version" => request["tidings-resource-version"].to_i)
end

def receive(request)
  body = (request.body || "").b # even if it is too large, so that the sender gets the answer
  return 413 if body.bytesize > BODY_LIMIT
  return 401 unless authentic?(request, body)

  event = decode(request, body)
  STORAGE.handle_once(event) unless event["event"] == "webhook.ping" # an operator's test
  204
rescue JSON::ParserError
  400
rescue WEBrick::HTTPStatus::Status
  raise
rescue StandardError => e
  puts "webhook: #{e.message}"
  500
end

# --- Catching up
def catch_up
  loop do
    uri = URI(ENV.fetch("TIDINGS_URL") + "/api/v1/events")
    uri.query = URI.encode_www_form({ limit: 500, after: STORAGE.position }.compact)
    response = Net::HTTP.get_response(uri, "Authorization" => "Bearer #{ENV.fetch("TIDINGS_TOKEN")}")
    page = JSON.parse(response.body)
    if response.code == "410"
      read_everything_again
      STORAGE.position = page["after"]
      next
    end
    raise "#{response.code} #{page["detail"]}" unless response.code == "200"

    page["items"].each { |event| STORAGE.handle_once(event.merge("version" => event["resource_version"])) }
    STORAGE.position = page["next"]
    return if page["items"].empty? && !page["more"]
  end
end

if ENV["TIDINGS_URL"]
  Thread.new do
    loop do
      begin
        catch_up
      rescue StandardError => e
        puts "catching up: #{e.message}"
      end
      sleep 5 * 60
    end
  end
end

server = WEBrick::HTTPServer.new(BindAddress: HOST, Port: PORT.to_i, MaxClients: 200, RequestTimeout: 30,
                                 Logger: WEBrick::Log.new($stderr, WEBrick::Log::FATAL), AccessLog: [])
server.mount_proc("/webhook") { |request, response| response.status = receive(request) }
if ENV["OBSERVE"] # for tests alone
  server.mount_proc("/handled") { |_, response| response.body = JSON.generate("handled" => OBSERVED) }
end
%w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
server.start
