// Changes and events in one transaction, with node-postgres and the documentation's
// function.
const assert = require("node:assert");
const { Pool } = require("pg");
const { withUser } = require(process.env.SNIPPET);

async function main(url, first, rounds) {
  const pool = new Pool({ connectionString: url, max: 2 });
  for (let paid = first; paid < first + 10 * rounds; paid += 10) {
    const [gifted, gone] = [paid + 1, paid + 2];
    const client = await pool.connect();
    await client.query("BEGIN");
    await client.query("SET LOCAL tidings.user_id = 'ann'");
    await client.query("INSERT INTO invoices (id) VALUES ($1)", [paid]);
    await client.query("SELECT tidings.emit('invoice', 'paid', $1)", [String(paid)]);
    await client.query("COMMIT");
    await withUser(pool, "bob", async (client) => {
      await client.query("INSERT INTO invoices (id) VALUES ($1)", [gifted]);
      await client.query("SELECT tidings.emit('invoice', 'paid', $1, url => $2, user_id => $3)",
        [String(gifted), `/gifts/${gifted}`, "carol"]);
    });
    await assert.rejects(withUser(pool, "mallory", async (client) => {
      await client.query("INSERT INTO invoices (id) VALUES ($1)", [gone]);
      await client.query("SELECT tidings.emit('invoice', 'paid', $1)", [String(gone)]);
      throw new Error("the application gives up");
    }), /gives up/);
    await client.query("BEGIN");
    await client.query("UPDATE invoices SET status = 'voided' WHERE id = $1", [paid]);
    await client.query("SELECT tidings.emit('invoice', 'voided', $1)", [String(paid)]);
    await client.query("COMMIT");
    client.release();
    await assert.rejects(withUser(pool, "bob", async (client) => {
      await client.query("INSERT INTO invoices (id) VALUES ($1)", [gone]);
      await client.query("SELECT tidings.emit('invoice', 'lost', $1)", [String(gone)]);
    }), { code: "22023", message: /paid/ });
  }
  await pool.end();
}

main(process.argv[2], Number(process.argv[3]), Number(process.argv[4]));
