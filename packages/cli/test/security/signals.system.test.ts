import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync, spawn } from "node:child_process"
import * as Fs from "node:fs"
import { type AddressInfo, createServer, type Server } from "node:net"
import * as Path from "node:path"
import { folder, start } from "../support/command.ts"

// Whatever a command waits for, it ends at once when it gets a signal.

/** A server that accepts connections and never answers. `first` resolves at the first connection. */
const silent = Effect.acquireRelease(
  Effect.promise(async () => {
    let came = () => {}
    const first = new Promise<void>((resolve) => (came = resolve))
    const server: Server = createServer((socket) => {
      socket.on("error", () => {})
      socket.once("data", came)
      came()
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    return { server, first, port: (server.address() as AddressInfo).port }
  }),
  ({ server }) => Effect.sync(() => void server.close())
)

/** Sends the signal, and how the command ends: at once, or a little later on a busy machine. */
const ends = (command: ReturnType<typeof start>, signal: NodeJS.Signals) =>
  Effect.gen(function* () {
    const at = performance.now()
    command.child.kill(signal)
    const { code, stderr } = yield* Effect.promise(() => command.ended)
    assert.isBelow(performance.now() - at, 5_000)
    return { code, stderr }
  })

const scoped = (cwd: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => start(cwd, args, env)),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

const codes = { SIGINT: 130, SIGTERM: 143 } as const

describe("a command that waits", { timeout: 60_000 }, () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.live(`for a provider that never answers ends at ${signal}, and leaves no lock`, () =>
      Effect.gen(function* () {
        const { inside } = yield* folder
        const { first, port } = yield* silent
        const env = { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: `http://127.0.0.1:${port}` }
        const command = yield* scoped(inside, ["run", "docs", "--prompt", "x", "--out", "out"], env)
        yield* Effect.promise(() => first)
        const { code, stderr } = yield* ends(command, signal)
        assert.strictEqual(code, codes[signal])
        assert.match(stderr, /^\nStopped\.\n$/)
        assert.deepStrictEqual(Fs.readdirSync(Path.join(inside, "out")), [])
      })
    )

    for (const args of [["status"], ["status", "--watch"], ["run", "docs", "--prompt", "x"]]) {
      it.live(`for a Redis that never answers ends at ${signal}: ${args.join(" ")}`, () =>
        Effect.gen(function* () {
          const { inside } = yield* folder
          const { first, port } = yield* silent
          const command = yield* scoped(inside, [...args, "--redis", `redis://127.0.0.1:${port}`])
          yield* Effect.promise(() => first)
          assert.strictEqual((yield* ends(command, signal)).code, codes[signal])
        })
      )
    }

    it.live(`for a reader of its report ends at ${signal}`, () =>
      Effect.gen(function* () {
        const { inside } = yield* folder
        execFileSync("mkfifo", [Path.join(inside, "pipe")])
        const command = yield* scoped(inside, ["forecast", "--report", "pipe"])
        // Regression: a process that waits for a pipe in a call of the system cannot end.
        while (!command.output().includes("waiting for a reader of")) yield* Effect.sleep("20 millis")
        assert.strictEqual((yield* ends(command, signal)).code, codes[signal])
      })
    )

    it.live(`for a slow reader of its report ends at ${signal}`, () =>
      Effect.gen(function* () {
        const { inside } = yield* folder
        const pipe = Path.join(inside, "pipe")
        execFileSync("mkfifo", [pipe])
        const reader = Fs.openSync(pipe, Fs.constants.O_RDONLY | Fs.constants.O_NONBLOCK)
        const command = yield* scoped(inside, ["forecast", "--report", "pipe"])
        const some = Buffer.alloc(1)
        const read = (): number => {
          try {
            return Fs.readSync(reader, some)
          } catch {
            return 0
          }
        }
        while (read() === 0) yield* Effect.sleep("20 millis")
        assert.isNull(command.child.exitCode)
        assert.strictEqual((yield* ends(command, signal)).code, codes[signal])
        Fs.closeSync(reader)
      })
    )
  }

  it.live("for calls to end, as a gateway does, ends at once at a second signal", () =>
    Effect.gen(function* () {
      const { inside } = yield* folder
      const { first, port } = yield* silent
      const upstream = `anthropic=http://127.0.0.1:${port}`
      const command = yield* scoped(inside, ["gateway", "--port", "0", "--upstream", upstream])
      const until = (text: string) =>
        Effect.gen(function* () {
          while (!command.output().includes(text)) yield* Effect.sleep("20 millis")
        })
      yield* until("listening on")
      const url = /http:\S+/.exec(command.output())![0]
      const body = JSON.stringify({
        model: "claude-sonnet-5",
        max_tokens: 9,
        messages: [{ role: "user", content: "Hi" }]
      })
      yield* Effect.forkScoped(
        Effect.ignore(Effect.tryPromise(() => fetch(`${url}/v1/messages`, { method: "POST", body })))
      )
      yield* Effect.promise(() => first)
      const at = performance.now()
      command.child.kill("SIGINT")
      yield* until("press Ctrl-C again to end them")
      const again = Effect.andThen(
        Effect.sync(() => command.child.kill("SIGINT")),
        Effect.sleep("100 millis")
      )
      const { code } = yield* Effect.raceFirst(
        Effect.promise(() => command.ended),
        Effect.forever(again)
      )
      assert.strictEqual(code, 130)
      assert.isBelow(performance.now() - at, 10_000)
    })
  )

  it.live("for a reader of its report continues when there is one", () =>
    Effect.gen(function* () {
      const { inside } = yield* folder
      const pipe = Path.join(inside, "pipe")
      execFileSync("mkfifo", [pipe])
      const command = yield* scoped(inside, ["forecast", "--report", "pipe"])
      const read = spawn("cat", [pipe], { stdio: ["ignore", "pipe", "ignore"] })
      let text = ""
      read.stdout.on("data", (chunk) => (text += chunk))
      const { code, stderr } = yield* Effect.promise(() => command.ended)
      assert.strictEqual(code, 0, stderr)
      assert.match(text, /^<!doctype html>[^]*<\/html>\s*$/)
    })
  )

  it.live("and works on large files handles signals in between", () =>
    Effect.gen(function* () {
      const { inside } = yield* folder
      const line = "The gate opens when the bucket has room for all of the tokens of a call.\n"
      for (const name of ["a", "b", "c"]) {
        Fs.writeFileSync(Path.join(inside, "docs", `${name}.txt`), `${name}\n${line.repeat(800_000)}`)
      }
      const rows = Array.from({ length: 700_000 }, (_, n) => `${n / 10},${100 + (n % 900)},${1 + (n % 300)}\n`)
      Fs.writeFileSync(Path.join(inside, "trace.csv"), `Timestamp,Request tokens,Response tokens\n${rows.join("")}`)
      const result = { agent: "a", step: "s", model: "m", usage: { inputTokens: 1, outputTokens: 1 }, stop: null }
      Fs.mkdirSync(Path.join(inside, "out"))
      const results = Array.from({ length: 300_000 }, (_, n) => JSON.stringify({ ...result, key: `${n}`, text: line }))
      Fs.writeFileSync(Path.join(inside, "out/results.jsonl"), `${results.join("\n")}\n`)
      for (const args of [
        ["forecast", "docs"],
        ["forecast", "--trace", "trace.csv"],
        ["run", "docs/one.txt", "--prompt", "x", "--out", "out", "--dry-run"]
      ]) {
        for (const millis of [700, 1_500]) {
          const command = yield* scoped(inside, args)
          yield* Effect.sleep(millis)
          // One that is done already, or has not begun to listen, has heard it too.
          assert.include([130, 0, null], (yield* ends(command, "SIGINT")).code, args.join(" "))
        }
      }
    })
  )
})
