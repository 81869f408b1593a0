import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "@floodgate/redis"
import * as Spending from "floodgate/Spending"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { root } from "../../../../test/support/modules.ts"
import { paying } from "../../../../test/support/paying.ts"
import * as Redis from "../../../redis/test/server.ts"

// Real processes and a real server. Every wait is for a line or an exit, never for a time.

const running = new Set<ChildProcess>()

const floodgate = (args: ReadonlyArray<string>) => start("packages/cli/src/bin.ts", args)

const start = (script: string, args: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, ["--conditions=@floodgate/source", script, ...args], {
    cwd: root,
    env: { PATH: process.env.PATH },
    stdio: ["ignore", "pipe", "pipe"]
  })
  running.add(child)
  let stderr = ""
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()))
  const lines: Array<string> = []
  const output = createInterface({ input: child.stdout })
  output.on("line", (line) => lines.push(line))
  const exit = once(child, "close").then(([code]) => {
    running.delete(child)
    return { code: code as number | null, lines, out: lines.join("\n"), stderr }
  })
  return { child, exit, output }
}

interface Status {
  readonly pools: ReadonlyArray<{
    readonly pool: string
    readonly dimensions: { readonly inputTokens: { readonly level: number; readonly limitPerSecond: number } }
    readonly inFlight: number
    readonly processes: ReadonlyArray<{
      readonly name: string
      readonly inFlight: number
      readonly held: object
      readonly waiting: object | null
    }>
  }>
}

afterAll(() => {
  for (const child of running) child.kill("SIGKILL")
})

/** The lines of the log without those about waiting calls. */
const unwaited = (stderr: string): ReadonlyArray<string> =>
  stderr.split("\n").filter((line) => line !== "" && !/^floodgate: (?:waiting|the wait) /.test(line))

describe("a Redis that is not there", () => {
  const said = /^floodgate: no Redis answers at redis:\/\/127\.0\.0\.1:1 \(.*ECONNREFUSED.*\); start one there, .*\n$/

  it.each([
    ["status", "--redis", "redis://127.0.0.1:1"],
    ["status", "--redis", "redis://:secret@127.0.0.1:1", "--watch"],
    ["run", "README.md", "--prompt", "x", "--redis", "redis://:secret@127.0.0.1:1", "--out", "/dev/null/out"]
  ])("is one line and a 4 for %s %s", async (...args) => {
    const { code, out, stderr } = await floodgate(args).exit
    assert.strictEqual(code, 4)
    assert.match(stderr, said)
    assert.notInclude(stderr, "secret")
    assert.strictEqual(out, "")
  })

  it("is a usage error if the address is invalid", async () => {
    const { code, stderr } = await floodgate(["status", "--redis", "localhost:6379"]).exit
    assert.strictEqual(code, 2)
    assert.match(stderr, /--redis.*redis:\/\/127\.0\.0\.1:6379/)
  })
})

describe.skipIf(Redis.skipped !== undefined)("runs that share a budget in Redis", () => {
  let server: Redis.Server
  const at = mkdtempSync(join(tmpdir(), "floodgate-"))
  beforeAll(async () => {
    server = await Redis.start()
    mkdirSync(join(at, "docs"))
    for (let n = 0; n < 4; n++) {
      writeFileSync(join(at, "docs", `${n}.md`), `Document ${n} says that the gate opens.\n\n`.repeat(400))
    }
  })
  afterAll(async () => {
    await server.stop()
    rmSync(at, { recursive: true, force: true })
  })

  const run = (name: string) =>
    floodgate(
      `run ${at}/docs --prompt x --agents 4 --max-tokens 50 --json --input-tokens-per-minute 90000 --window sliding --out ${at}/${name} --redis ${server.url} --redis-prefix shared`.split(
        " "
      )
    )
  const status = async () => {
    const { code, out, stderr } = await floodgate([
      "status",
      "--redis",
      server.url,
      "--redis-prefix",
      "shared",
      "--json"
    ]).exit
    assert.strictEqual(code, 0, stderr)
    return JSON.parse(out) as Status
  }

  it("reports no pool before any process has joined", async () => {
    const { code, out } = await floodgate(["status", "--redis", server.url]).exit
    assert.strictEqual(code, 0)
    assert.match(
      out,
      /^No process has used a budget named "floodgate" in redis:.* lately: --redis-prefix names another/
    )
  })

  it("shows what each process holds, live and as JSON, until both runs end", async () => {
    const watching = floodgate(["status", "--redis", server.url, "--redis-prefix", "shared", "--watch", "--json"])
    // Otherwise the runs could end before the first status on a busy machine.
    await once(watching.output, "line")
    const runs = [run("one"), run("two")]
    const looks: Array<Status> = []
    for await (const line of watching.output) {
      looks.push(JSON.parse(line) as Status)
      const processes = looks.at(-1)!.pools[0]?.processes ?? []
      if (looks.length > 1 && processes.length === 2 && processes.some(({ waiting }) => waiting !== null)) break
    }
    watching.child.kill("SIGINT")
    const [pool] = looks.at(-1)!.pools
    assert.strictEqual(pool!.pool, "default")
    assert.isAtMost(pool!.dimensions.inputTokens.limitPerSecond, 1_500)
    const waiting = pool!.processes.flatMap(({ waiting }) => waiting ?? [])
    for (const charge of waiting) assert.hasAllKeys(charge, ["inputTokens"])
    const { out } = await floodgate(["status", "--redis", server.url, "--redis-prefix", "shared"]).exit
    assert.match(out, /^pool default\ninput +[█░]{20} /)
    assert.match(
      out,
      /\nprocess +in flight {2}holds +next call needs +silent for\n\S+\/\d+ +\d +.* \d+ s, dead at 20 s$/m
    )
    for (const { exit } of runs) {
      const { code, lines, stderr } = await exit
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual(unwaited(stderr), [])
      assert.deepInclude(JSON.parse(lines.at(-1)!), { event: "done", complete: true, calls: 21 })
    }
    assert.deepStrictEqual((await status()).pools[0]!.processes, [])
  }, 90_000)

  it("share the cap of a day, each with a folder of its own", async () => {
    const shared = ["--redis", server.url, "--redis-prefix", "daily"]
    const args = ["run", join(at, "docs"), "--prompt", "x", "--agents", "4", "--max-tokens", "50", "--json"]
    // The first call may cost $0.067, because each byte of its prompt may be a token.
    const dollars = 0.075
    const go = async (name: string) => {
      const capped = ["--max-usd-per-day", String(dollars), "--out", join(at, name)]
      const { code, lines } = await floodgate([...args, ...capped, ...shared]).exit
      return { code, done: JSON.parse(lines.at(-1)!) }
    }
    const first = await go("first of the day")
    const second = await go("second of the day")
    const { out } = await floodgate(["status", ...shared, "--json"]).exit
    const [cap] = JSON.parse(out).caps
    assert.deepInclude(cap, { cap: "run --max-usd-per-day", limit: dollars, held: 0 })
    assert.strictEqual(second.code, 1)
    assert.match(second.done.missing[0].reason, /left of the cap of \$\d\.\d+ a day for this day \(--max-usd-per-day\)/)
    assert.isAtMost(first.done.dollars + second.done.dollars, dollars)
    assert.isAbove(first.done.dollars, 0)
    assert.closeTo(cap.spent, first.done.dollars + second.done.dollars, 1e-6)
  }, 90_000)

  it("shows the caps in dollars, those that are used most first, as lines and as JSON", async () => {
    const args = ["status", "--redis", server.url, "--redis-prefix", "caps"]
    const store = FloodgateRedis.layerStoreUrl({ url: server.url, prefix: "caps" })
    const look = async () => JSON.parse((await floodgate([...args, "--json"]).exit).out)
    const isHeld = ({ caps }: { caps: ReadonlyArray<{ cap: string; held: number }> }) =>
      caps.some(({ cap, held }) => cap === "research" && held > 0)
    await Effect.gen(function* () {
      const research = yield* Spending.open("research", { dollars: 10, per: "day" })
      const search = yield* Spending.open("search", { dollars: 1 })
      yield* Spending.open("counts")
      yield* paying(research, 4, 2.5, 0)
      yield* paying(search, 1, 0.5, 0)
      const running = yield* Effect.forkChild(paying(research, 4, 0, 60_000))
      yield* Effect.promise(async () => {
        let state = await look()
        while (state.caps.length < 3 || !isHeld(state)) state = await look()
        const { caps, moreCaps, pools } = state
        assert.deepStrictEqual([pools, moreCaps], [[], 0])
        const midnight = (Math.floor(Date.now() / 86_400_000) + 1) * 86_400_000
        assert.deepStrictEqual(caps, [
          { cap: "research", spent: 2.5, held: 4, limit: 10, until: midnight },
          { cap: "search", spent: 0.5, held: 0, limit: 1, until: null },
          { cap: "counts", spent: 0, held: 0, limit: null, until: null }
        ])
        const { code, out } = await floodgate(args).exit
        assert.strictEqual(code, 0)
        assert.match(
          out,
          /^cap +spent +reserved +of +until\nresearch +\$2\.50 +\$4\.00 +\$10\.00 +20\d\d-\d\d-\d\dT00:00:00\.000Z\nsearch +\$0\.50 +\$0(?:\.00)? +\$1\.00 +-\ncounts .*no cap +-$/
        )
      })
      yield* Fiber.interrupt(running)
    }).pipe(Effect.scoped, Effect.provide(store), Effect.runPromise)
    const value = String(await server.command("HGET", "caps:ledger%3Asearch", "value"))
    const later = value.replace('"format":1', '"format":9')
    await server.command("HSET", "caps:ledger%3Abroken", "version", "1", "value", later, "at", "0")
    assert.match(
      (await floodgate(args).exit).out,
      /\ncap broken cannot be read: a later version of Floodgate has written it.*; its key is "caps:ledger%3Abroken"/
    )
  }, 60_000)

  describe("for a user of its own", () => {
    const page = readFileSync(join(root, "docs/guides/many-processes.md"), "utf8").replaceAll(/\s+/g, " ")
    const [, documented = ""] = /`ACL SETUSER floodgate ([^`]+)`/.exec(page) ?? []
    const rights = documented.split(" ")
    const allow = (...all: ReadonlyArray<string>) => server.command("ACL", "SETUSER", "floodgate", "reset", ...all)
    const address = () => server.url.replace("//", "//floodgate:password@")
    const gateway = () => floodgate(["gateway", "--port", "0", "--redis", address()])

    it("starts a gateway with the rights that the documentation lists", async () => {
      await allow(...rights)
      const started = gateway()
      for await (const line of started.output) if (/listening on/.test(line)) break
      started.child.kill("SIGTERM")
      assert.include([0, 143], (await started.exit).code)
      const { code, out } = await floodgate(["doctor", "--redis", address()]).exit
      assert.match(
        out.replaceAll(/\s+/g, " "),
        /ok Redis at \S+ answers; its user needs \+scan only for `floodgate status`/
      )
      assert.notStrictEqual(code, 4)
      const status = await floodgate(["status", "--redis", address()]).exit
      assert.match(status.stderr, /lacks a permission in Redis at \S+ \(NOPERM .*scan/)
      await allow(...rights, "+scan")
      assert.strictEqual((await floodgate(["status", "--redis", address()]).exit).code, 0)
    })

    it("names each permission that is missing", async () => {
      const needed = ["+eval", "+evalsha", "+time", "+hget", "+hmget", "+hset", "+pexpire", "+info"]
      for (const right of needed) {
        assert.include(rights, right)
        await allow(...rights.filter((each) => each !== right))
        const error = await Effect.runPromise(Effect.flip(FloodgateRedis.check({ url: address() })))
        const { message } = error.cause as Error
        assert.strictEqual(message, `NOPERM the user may not run ${right.slice(1)}: allow it ${right}`)
      }
      await allow(...rights.map((each) => each.replace("~floodgate", "~other")))
      const elsewhere = await Effect.runPromise(Effect.flip(FloodgateRedis.check({ url: address() })))
      assert.match((elsewhere.cause as Error).message, /^NOPERM .*: allow the user ~floodgate:\*$/)
      assert.deepStrictEqual(await server.command("KEYS", "floodgate:check*"), [])
      const { code, stderr } = await gateway().exit
      assert.strictEqual(code, 4)
      assert.match(
        stderr,
        /^floodgate: the user of the address lacks a permission in Redis at redis:\/\/127[^@]*\(NOPERM/
      )
    })

    it("says that the password is wrong", async () => {
      await allow(...rights, ">other")
      const { code, stderr } = await floodgate(["gateway", "--redis", address().replace("password", "secret")]).exit
      assert.strictEqual(code, 4)
      assert.match(stderr, /^floodgate: Redis at \S+ refuses the user or the password of the address \(WRONGPASS/)
      assert.notInclude(stderr, "secret")
    })
  })

  it("says that the state of a pool is damaged, and why", async () => {
    const args = ["--redis", server.url, "--redis-prefix", "damaged"]
    await server.command("HSET", "damaged:11%3Adefault", "version", "1", "value", '{"time":1e300}', "at", "0")
    const { code, out } = await floodgate(["status", ...args]).exit
    assert.strictEqual(code, 0)
    assert.match(
      out,
      /^pool default\ndamaged: time is not a number from .*; delete its key "damaged:11%3Adefault" if no process replaces it/
    )
    const json = await floodgate(["status", ...args, "--json"]).exit
    assert.match(JSON.parse(json.out).pools[0].damaged, /^time is not a number/)
    const checked = await floodgate(["doctor", ...args]).exit
    assert.match(checked.out.replace(/\s+/g, " "), /FAILS In Redis at \S+ the state of the budget is damaged: time is/)
  })

  it("shows names of other programs without control characters", async () => {
    // Regression: status printed them as they came.
    const name = "\u001b[2J\u202Eevil\n\u009b31m"
    const budget = Budget.layer({
      limits: { pools: { [name]: { inputTokens: { perMinute: 1_000 } } }, poolOf: () => name }
    }).pipe(Layer.provide(FloodgateRedis.layerStoreUrl({ url: server.url, prefix: "hostile", name })))
    const held = Budget.withReservation(
      { inputTokens: 1 },
      () => Effect.promise(() => Promise.all(["--json=false", "--json"].map(look))),
      { pool: name }
    )
    const look = (flag: string) => floodgate(["status", "--redis", server.url, "--redis-prefix", "hostile", flag]).exit
    const looks = await Effect.runPromise(Effect.provide(held, budget))
    for (const { code, out, stderr } of looks) {
      assert.strictEqual(code, 0, stderr)
      assert.include(out, "evil")
      assert.notMatch(out, /[^\P{Cc}\n]|[\u202A-\u202E\u2066-\u2069]/u)
    }
    assert.match(looks[0]!.out, /^pool \uFFFD\[2J\uFFFDevil\uFFFD\uFFFD31m$/m)
    assert.strictEqual((JSON.parse(looks[1]!.out) as Status).pools[0]!.pool, name)
  })

  it("shows a killed process, and that its calls are over once it is considered dead", async () => {
    // Regression: dead processes were shown as running for an hour.
    const holder = start("packages/cli/test/support/holder.ts", [server.url, "killed"])
    await once(holder.output, "line")
    const watching = floodgate(["status", "--redis", server.url, "--redis-prefix", "killed", "--watch", "--json"])
    const looks: Array<Status["pools"][number]> = []
    for await (const line of watching.output) {
      looks.push((JSON.parse(line) as Status).pools[0]!)
      holder.child.kill("SIGKILL")
      if (looks.at(-1)!.processes.length === 0) break
    }
    watching.child.kill("SIGINT")
    assert.deepInclude(looks[0]!.processes[0]!, { name: "holder", inFlight: 1, held: { inputTokens: 100 } })
    assert.strictEqual(looks[0]!.inFlight, 1)
    assert.strictEqual(looks.at(-1)!.inFlight, 0)
  })

  it("reports in one line that Redis went away, and what happened to the calls", async () => {
    const going = run("three")
    await once(going.output, "line")
    await server.restart(1_500)
    const { code, stderr } = await going.exit
    assert.strictEqual(code, 0, stderr)
    assert.isAtMost(unwaited(stderr).length, 3)
    assert.match(stderr, /^floodgate: warn: The store of the budget cannot be reached \(.+\)\n/)
    assert.match(stderr, /\nfloodgate: The store of the budget can be reached again\n/)
  }, 60_000)
})

if (Redis.skipped !== undefined) console.warn(`SKIPPED: runs that share a budget, because ${Redis.skipped}`)
