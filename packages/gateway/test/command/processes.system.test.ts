/** A gateway of several processes, with a real Redis. Its tests wait only for conditions. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { ProviderServer } from "floodgate/testing/server"
import { execFile } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Net from "node:net"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as Redis from "../../../redis/test/server.ts"
import * as Process from "../support/command.ts"

const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [{ role: "user", content: "Hello" }] })

/** A request on a connection of its own, which may go to any of the processes: its status, or 0 if the connection breaks, and its text. */
const ask = (url: string, path = "/v1/messages") =>
  Effect.callback<{ readonly status: number; readonly text: string }>((resume) => {
    const isCall = path.endsWith("/messages")
    const request = Http.request(`${url}${path}`, {
      agent: false,
      method: isCall ? "POST" : "GET",
      headers: { "x-api-key": "sk-a-secret", "anthropic-version": "2023-06-01" }
    })
    const ended = (status: number, text: string) => resume(Effect.succeed({ status, text }))
    request.on("error", ({ message }) => ended(0, message))
    request.on("response", (response) => {
      let text = ""
      response.on("data", (chunk) => (text += chunk))
      response.on("end", () => ended(response.statusCode!, text))
      response.on("error", ({ message }) => ended(0, message))
    })
    request.end(isCall ? body : undefined)
  })

const statusOf = (url: string): Effect.Effect<number> => Effect.map(ask(url), ({ status }) => status)

const until = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("20 millis") })

/** How many calls each process has answered, by as many requests: they go to one process after the other. */
const answered = (url: string, processes: number): Effect.Effect<ReadonlyArray<number>> =>
  Effect.forEach(Array.from({ length: processes }), () =>
    Effect.map(ask(url, "/floodgate/status"), ({ text }) => {
      const { agents } = JSON.parse(text) as { readonly agents: ReadonlyArray<{ readonly calls: number }> }
      return agents.reduce((sum, { calls }) => sum + calls, 0)
    })
  )

const childrenOf = (pid: number): Effect.Effect<ReadonlyArray<number>> =>
  Effect.promise(() =>
    promisify(execFile)("pgrep", ["-P", String(pid)]).then(
      ({ stdout }) => stdout.trim().split("\n").map(Number),
      () => []
    )
  )

const runs = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Until these have ended. A test that fails leaves none behind. */
const gone = (pids: ReadonlyArray<number>): Effect.Effect<unknown> =>
  until(
    Effect.sync(() => pids.filter(runs)),
    ({ length }) => length === 0
  )

/** A gateway of so many processes, in front of a provider, and a function that changes its configuration. */
const started = Effect.fnUntraced(function* (processes: number, upstream: string, settings: object = {}) {
  const { inside } = yield* Process.folder
  const { url: address } = yield* Redis.scoped
  const configure = (more: object) =>
    Fs.writeFileSync(
      Path.join(inside, "gateway.json"),
      JSON.stringify({ upstreams: { anthropic: upstream }, drain: "20 seconds", ...settings, ...more })
    )
  configure({})
  const args = ["--port", "0", "--config", "gateway.json", "--redis", address, "--processes", String(processes)]
  const gateway = Process.start(inside, args)
  const pid = gateway.child.pid!
  let all: ReadonlyArray<number> = []
  yield* Effect.addFinalizer(() =>
    Effect.flatMap(childrenOf(pid), (now) =>
      Effect.sync(() => {
        gateway.child.kill("SIGKILL")
        for (const each of [...all, ...now]) if (runs(each)) process.kill(each, "SIGKILL")
      })
    )
  )
  const text = yield* until(Effect.sync(gateway.output), (text) => text.includes("\n"))
  const [, url, count] =
    /^floodgate gateway listening on (http:\/\/127\.0\.0\.1:\d+) in (\d) processes\n$/.exec(text) ?? []
  assert.strictEqual(count, String(processes), text)
  all = yield* childrenOf(pid)
  assert.lengthOf(all, processes)
  return { ...gateway, url: url!, children: all, configure }
})

const provider = (baseMillis: number, more: object = {}) =>
  ProviderServer.make({ latency: { baseMillis, perInputTokenMillis: 0 }, ...more })

/** Two calls that have begun, one at each of two processes. */
const twoCalls = Effect.fnUntraced(function* (url: string, { stats }: ProviderServer.ProviderServer["Service"]) {
  const calls = yield* Effect.forEach([0, 1], () => Effect.forkChild(statusOf(url)))
  yield* until(stats, ({ inFlight }) => inFlight === 2)
  return Effect.map(Effect.forEach(calls, Fiber.join), (statuses) => statuses.toSorted((one, other) => one - other))
})

const tests = it.live.skipIf(Redis.skipped !== undefined)

const test = <E>(name: string, effect: Effect.Effect<void, E, Scope.Scope>) =>
  tests(name, () => Effect.scoped(effect), { timeout: 60_000 })

describe("a gateway of several processes", () => {
  test(
    "answers with all of them, and stays within one limit",
    Effect.gen(function* () {
      // Two processes with a limit each would send all calls at once, and the provider would reject some.
      const limitOf = (burst: number) => ({ requests: { perSecond: 2, burst } })
      const upstream = yield* provider(20, { limits: limitOf(32), headers: "none" })
      const { output, url } = yield* started(2, upstream.url, { limits: limitOf(30) })
      const statuses = yield* Effect.all(
        Array.from({ length: 40 }, () => statusOf(url)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(new Set(statuses), new Set([200]), output())
      const { completed, rejected } = yield* upstream.stats
      assert.deepStrictEqual([completed, rejected], [40, 0])
      const counts = yield* answered(url, 2)
      assert.strictEqual(counts[0]! + counts[1]!, 40)
      assert.isAbove(Math.min(...counts), 0)
    })
  )

  test(
    "replaces one that was killed, and fails no other request",
    Effect.gen(function* () {
      const upstream = yield* provider(1_000)
      const { child, children, ended, output, url } = yield* started(2, upstream.url)
      const calls = yield* twoCalls(url, upstream)
      process.kill(children[0]!, "SIGKILL")
      assert.deepStrictEqual(yield* calls, [0, 200])
      yield* until(Effect.sync(output), (text) => text.includes("was ended by SIGKILL; another starts in 1 s\n"))
      const while_ = yield* Effect.all(
        Array.from({ length: 8 }, () => statusOf(url)),
        { concurrency: 4 }
      )
      assert.deepStrictEqual(new Set(while_), new Set([200]))
      const [next] = yield* until(
        Effect.map(childrenOf(child.pid!), (now) => now.filter((pid) => !children.includes(pid))),
        ({ length }) => length === 1
      )
      // The next one answers, too: 9 is odd, so no process that is asked twice has answered half of it.
      yield* until(answered(url, 2), ([one = 0, other = 0]) => one + other === 9)
      assert.isTrue(runs(next!))
      child.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => ended)
      assert.strictEqual(code, 143, stderr)
      yield* gone([...children, next!])
    })
  )

  test(
    "lets the calls of all of them end at SIGTERM, and leaves none behind",
    Effect.gen(function* () {
      const upstream = yield* provider(1_500)
      const { child, children, ended, url } = yield* started(2, upstream.url)
      const calls = yield* twoCalls(url, upstream)
      child.kill("SIGTERM")
      const { code, stderr, stdout } = yield* Effect.promise(() => ended)
      assert.deepStrictEqual(yield* calls, [200, 200])
      assert.strictEqual(code, 143)
      assert.strictEqual(stderr, "Closing: running calls may finish; press Ctrl-C again to end them\n")
      assert.strictEqual(stdout.split("\n").length, 2)
      assert.deepStrictEqual(children.filter(runs), [])
    })
  )

  test(
    "ends with its supervisor, and lets calls end first",
    Effect.gen(function* () {
      const upstream = yield* provider(1_500)
      const { child, children, url } = yield* started(2, upstream.url)
      const calls = yield* twoCalls(url, upstream)
      child.kill("SIGKILL")
      assert.deepStrictEqual(yield* calls, [200, 200])
      yield* gone(children)
    })
  )

  test(
    "reads its configuration again in all of them at SIGHUP, which may not ask for what they cannot share",
    Effect.gen(function* () {
      const upstream = yield* provider(1)
      const { child, configure, output, url } = yield* started(2, upstream.url)
      const times = (text: string, said: string) => text.split(said).length - 1
      configure({ token: "0123456789abcdef" })
      child.kill("SIGHUP")
      yield* until(Effect.sync(output), (text) => times(text, "Reloaded the configuration\n") === 2)
      assert.deepStrictEqual(yield* Effect.replicateEffect(statusOf(url), 4), [401, 401, 401, 401])
      configure({ adminToken: "0123456789abcdef" })
      child.kill("SIGHUP")
      const kept = "Kept the old configuration: gateway.json: adminToken does not go with --processes"
      yield* until(Effect.sync(output), (text) => times(text, kept) === 2)
      assert.deepStrictEqual(yield* Effect.replicateEffect(statusOf(url), 4), [401, 401, 401, 401])
    })
  )

  test(
    "says once what keeps it from starting, and ends with the code of a single process",
    Effect.gen(function* () {
      const { url: address } = yield* Redis.scoped
      const { inside } = yield* Process.folder
      const taken = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = Net.createServer().listen(0, "127.0.0.1")
          await once(server, "listening")
          return server
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = taken.address() as Net.AddressInfo
      const run = (at: string, processes: string) =>
        Process.run(inside, ["--port", String(port), "--redis", at, "--processes", processes])
      for (const [at, says] of [
        [address, /^floodgate-gateway: cannot listen on .* something listens there already; .*\n$/],
        ["redis://127.0.0.1:1", /^floodgate-gateway: no Redis answers at .*\n$/]
      ] as const) {
        const several = yield* run(at, "3")
        assert.match(several.stderr, says)
        assert.strictEqual(several.code, 4)
        assert.deepStrictEqual(several, yield* run(at, "1"))
      }
    })
  )
})
