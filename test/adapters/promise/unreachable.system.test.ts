import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { join } from "node:path"

const root = join(import.meta.dirname, "../../..")

/** Runs a program that makes one call to an address, until it says what is wrong or ends. Returns its standard error. */
const told = (baseURL: string, options: string): Promise<string> =>
  new Promise((resolve) => {
    const program = `
      import * as Floodgate from "floodgate/promise"
      const floodgate = Floodgate.create(${options})
      const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 1, messages: [{ role: "user", content: "Hello" }] })
      const call = () => floodgate.fetch("${baseURL}/v1/messages?key=secret", { method: "POST", headers: { "x-api-key": "secret" }, body })
      await Promise.allSettled([call(), call()])`
    const args = ["--conditions=@floodgate/source", "--input-type=module", "--eval", program]
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "ignore", "pipe"] })
    let text = ""
    child.stderr.on("data", (data: Buffer) => {
      text += data.toString()
      child.kill("SIGKILL")
    })
    child.on("close", () => resolve(text))
  })

describe("a provider that cannot be reached and has never answered", () => {
  for (const options of ["", "{ log: false }"]) {
    it(`is told in one line, with its address and the cause: create(${options})`, async () => {
      // Port 1 of this address is refused by `fetch` itself, so another one that nobody listens on.
      assert.strictEqual(
        await told("http://127.0.0.1:45991", options),
        "floodgate: warn: could not connect to the provider: ECONNREFUSED (http://127.0.0.1:45991); check the base URL and the network, or retry; calls are tried again for a while\n"
      )
    }, 20_000)
  }

  it("is told for a port that fetch itself refuses, too", async () => {
    assert.strictEqual(
      await told("http://127.0.0.1:6000", ""),
      "floodgate: warn: the call failed before the provider answered (the runtime never connects to this port, which fetch blocks: http://127.0.0.1:6000; check the base URL); change the request or the code around it, retrying does not help\n"
    )
  }, 20_000)

  it("is told for an unknown host, too", async () => {
    assert.strictEqual(
      await told("http://nowhere.invalid", ""),
      "floodgate: warn: could not connect to the provider: ENOTFOUND (http://nowhere.invalid); check the base URL and the network, or retry\n"
    )
  }, 20_000)
})
