import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { root } from "../../../../test/support/modules.ts"

// Real processes and real HTTP. Every wait is for a line, an exit or a state of the provider, never for a time.

const agents = 12
const calls = agents * 5 + 1

interface Process {
  readonly child: ChildProcess
  readonly stderr: () => string
  /** The first line of standard output, from now on, for which the function gives something. */
  readonly line: <A>(match: (line: string) => A | undefined) => Promise<A>
  readonly exit: Promise<{ readonly code: number | null; readonly lines: ReadonlyArray<string> }>
}

const running = new Set<ChildProcess>()

afterAll(() => {
  for (const child of running) child.kill("SIGKILL")
})

const floodgate = (args: ReadonlyArray<string>, env: Record<string, string> = {}, cwd = root): Process => {
  const child = spawn(
    process.execPath,
    ["--conditions=@floodgate/source", join(root, "packages/cli/src/bin.ts"), ...args],
    {
      cwd,
      env: { PATH: process.env.PATH, ...env },
      stdio: ["ignore", "pipe", "pipe"]
    }
  )
  running.add(child)
  let stderr = ""
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()))
  const lines: Array<string> = []
  const waiting = new Set<(line: string) => void>()
  createInterface({ input: child.stdout }).on("line", (line) => {
    lines.push(line)
    for (const wait of waiting) wait(line)
  })
  const exit = new Promise<{ code: number | null; lines: Array<string> }>((resolve) => {
    child.on("close", (code) => {
      running.delete(child)
      resolve({ code, lines })
    })
  })
  return {
    child,
    exit,
    stderr: () => stderr,
    line: (match) =>
      new Promise((resolve, reject) => {
        const wait = (line: string) => {
          const found = match(line)
          if (found === undefined) return
          waiting.delete(wait)
          resolve(found)
        }
        waiting.add(wait)
        void exit.then(({ code }) => reject(new Error(`ended with ${code} before that line: ${stderr}`)))
      })
  }
}

interface Stats {
  readonly requests: number
  readonly completed: number
  readonly rejected: number
  readonly aborted: number
  readonly inFlight: number
  readonly inputTokens: number
}

const provider = async (...args: ReadonlyArray<string>) => {
  const server = floodgate(["provider", "--port", "0", "--time-scale", "20", ...args])
  const url = await server.line((line) => /listening on (http:\S+)/.exec(line)?.[1])
  const stats = async () => (await (await fetch(`${url}/stats`)).json()) as Stats
  /** Every answer of `stats` is a round trip, so this polls at the pace of the server. */
  const until = async (holds: (stats: Stats) => boolean): Promise<Stats> => {
    const now = await stats()
    return holds(now) ? now : until(holds)
  }
  return { server, url, stats, until, env: { ANTHROPIC_BASE_URL: url, ANTHROPIC_API_KEY: "test" } }
}

interface Done {
  readonly event: string
  readonly complete: boolean
  readonly calls: number
  readonly reused: number
}

const doneOf = (lines: ReadonlyArray<string>): Done => JSON.parse(lines.at(-1)!) as Done

const resultsIn = (out: string): ReadonlyArray<string> =>
  readFileSync(join(out, "results.jsonl"), "utf8").trim().split("\n")

describe("how floodgate ends", () => {
  const full = "/dev/full"

  for (const args of [
    ["--help"],
    ["forecast", "--tokens-per-second", "60000"],
    ["run", "README.md", "--prompt", "x"]
  ]) {
    it.skipIf(!existsSync(full))(`with 3 and one line when nothing can be written of ${args[0]}`, async () => {
      const at = mkdtempSync(join(tmpdir(), "floodgate-"))
      const more = args[0] === "run" ? ["--out", at] : []
      const stdout = openSync(full, "w")
      const child = spawn(
        process.execPath,
        ["--conditions=@floodgate/source", "packages/cli/src/bin.ts", ...args, ...more],
        {
          cwd: root,
          env: { PATH: process.env.PATH },
          stdio: ["ignore", stdout, "pipe"]
        }
      )
      let stderr = ""
      child.stderr!.on("data", (data: Buffer) => (stderr += data.toString()))
      assert.strictEqual(await new Promise((resolve) => child.on("close", resolve)), 3)
      assert.match(stderr, /^floodgate: cannot write standard output: the disk is full\n/)
      assert.isFalse(existsSync(join(at, "run.lock")))
      closeSync(stdout)
      rmSync(at, { recursive: true })
    })
  }

  it("a stopped provider reports its calls in flight", async () => {
    const { server, url, until } = await provider("--latency", "10000000")
    const out = mkdtempSync(join(tmpdir(), "floodgate-"))
    const { child, exit } = floodgate(["run", "README.md", "--prompt", "x", "--agents", "2", "--out", out], {
      ANTHROPIC_BASE_URL: url,
      ANTHROPIC_API_KEY: "test"
    })
    await until(({ inFlight }) => inFlight > 0)
    server.child.kill("SIGINT")
    await server.exit
    assert.match(
      server.stderr(),
      /^Stopped: \d+ requests?, 0 completed, 0 rejected, 0 failed, 0 aborted, [12] in flight,/
    )
    child.kill("SIGKILL")
    await exit
    rmSync(out, { recursive: true })
  })

  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143]
  ] as const) {
    it(`with ${code} at a ${signal}`, async () => {
      const { server } = await provider()
      server.child.kill(signal)
      assert.strictEqual((await server.exit).code, code)
      assert.match(server.stderr(), /^Stopped: 0 requests/)
    })
  }
})

describe("floodgate try, piped", () => {
  it("begins with the difference, tells its progress on standard error, and writes no file", async () => {
    const at = mkdtempSync(join(tmpdir(), "floodgate-"))
    const { exit, stderr } = floodgate(["try"], {}, at)
    const { code, lines } = await exit
    assert.strictEqual(code, 0)
    const [, alone] = /^Without Floodgate (\d+) of 200 calls were answered, with Floodgate 200 of 200\.$/.exec(
      lines[0]!
    )!
    assert.isBelow(Number(alone), 150)
    assert.match(stderr(), /^40 agents of 5 calls, .*\n\d:\d\d {2}the SDK by itself: /)
    assert.deepStrictEqual(readdirSync(at), [])
    rmSync(at, { recursive: true })
  }, 120_000)

  it("shows the result so far at Ctrl-C", async () => {
    const { child, exit, stderr } = floodgate(["try"])
    await new Promise<void>((resolve) =>
      child.stderr!.on("data", () => stderr().includes("with Floodgate: ") && resolve())
    )
    child.kill("SIGINT")
    const { code, lines } = await exit
    assert.strictEqual(code, 130)
    assert.match(lines[0]!, /^Without Floodgate \d+ of 200 calls were answered, with Floodgate \d+ of 200, so far\.$/)
  }, 60_000)

  for (const [old, told, help] of [
    ["start", "`start` is called `try` now; its table is printed by `storm all --table`", "floodgate try"],
    ["lab", "`lab` is called `storm all` now", "floodgate storm all [flags]"]
  ] as const) {
    it(`a command is still started by its earlier name ${old}, which says so on standard error`, async () => {
      const { exit, stderr } = floodgate([old, "--help"])
      const { code, lines } = await exit
      assert.strictEqual(code, 0)
      assert.strictEqual(stderr(), `floodgate: ${told}\n`)
      assert.include(lines.join("\n"), help)
    })
  }
})

describe("the gateway without a key, in docs/gateway.md", () => {
  it("answers the call there, as written but for the ports", async () => {
    const page = readFileSync(join(root, "docs/gateway.md"), "utf8")
    const [, block] = /```sh\n(npm run -s floodgate -- provider\n[\s\S]*?)```/.exec(page)!
    const [provider, gateway, ...call] = block!.split("\n")
    const argsOf = (line: string | undefined) => line!.replace("npm run -s floodgate -- ", "").split(" ")
    const listening = (line: string) => /listening on (http:\S+)/.exec(line)?.[1]
    const at = await floodgate([...argsOf(provider), "--port", "0"]).line(listening)
    const through = argsOf(gateway?.replace("http://127.0.0.1:8787", at))
    const url = await floodgate([...through, "--port", "0"]).line(listening)
    const curl = call.join("\n").replace("http://127.0.0.1:8788", url)
    assert.match(execFileSync("sh", ["-c", curl], { encoding: "utf8" }), /"text":"A simulated answer to: Hello"/)
  }, 60_000)
})

describe("floodgate storm all --table", () => {
  it("prints the table of the README", async () => {
    const { code, lines } = await floodgate(["storm", "all", "--table"]).exit
    assert.strictEqual(code, 0)
    for (const name of ["sdk-2", "sdk-10", "bottleneck-tuned", "hand-written", "oracle"]) {
      assert.isTrue(lines.some((line) => line.startsWith(`${name} `)))
    }
    // The README's first figures, including those where Floodgate is slower, come from this code.
    const readme = readFileSync(join(root, "README.md"), "utf8")
    const shown = /\n```\n([^`]*strategy +429s[^`]*)```\n/.exec(readme)![1]!
    assert.include(lines.join("\n"), shown.trimEnd())
    const quoted = readme.match(/^> .*$/gm)!.map((line) => line.slice(2))
    assert.include(lines.join("\n"), quoted.join(" "))
  }, 120_000)
})

describe("floodgate run against floodgate provider", () => {
  let at = ""
  const run = (out: string, env: Record<string, string>, ...more: ReadonlyArray<string>) =>
    floodgate(
      [
        "run",
        join(at, "docs"),
        "--prompt",
        "What must an operator know?",
        "--max-tokens",
        "300",
        "--json",
        "--out",
        out,
        ...more
      ],
      env
    )

  beforeAll(() => {
    at = mkdtempSync(join(tmpdir(), "floodgate-"))
    mkdirSync(join(at, "docs"))
    for (let n = 0; n < agents; n++) {
      const sentence = `Document ${n} says that the gate opens when the bucket has room for the call.`
      writeFileSync(join(at, "docs", `${n}.md`), `${sentence}\n\n`.repeat(500))
    }
  })

  afterAll(() => {
    rmSync(at, { recursive: true, force: true })
  })

  it("loses no agent at a limit that binds, and learns it from the responses", async () => {
    const { env, server, stats } = await provider("--input-tokens-per-minute", "60000", "--latency", "1000")
    const out = join(at, "bound")
    const { code, lines } = await run(out, env).exit
    assert.strictEqual(code, 0)
    assert.deepInclude(doneOf(lines), { event: "done", complete: true, calls, reused: 0 })
    assert.strictEqual(resultsIn(out).length, calls)
    assert.isTrue(existsSync(join(out, "summary.md")))
    const seen = await stats()
    assert.isAbove(seen.inputTokens, 100_000)
    assert.isAtMost(seen.rejected, 2)
    assert.strictEqual(seen.completed, calls)

    server.child.kill("SIGINT")
    assert.strictEqual((await server.exit).code, 130)
    assert.match(server.stderr(), /^Stopped: \d+ requests, 61 completed/)
  })

  it("stops within a second of Ctrl-C, aborts its requests, and repeats no finished call", async () => {
    const { env, server, until } = await provider("--input-tokens-per-minute", "200000", "--latency", "4000")
    const out = join(at, "stopped")
    const first = run(out, env)
    let answers = 0
    await first.line((line) => (line.includes(`"answered"`) && ++answers === 20 ? true : undefined))
    const stoppedAt = performance.now()
    first.child.kill("SIGINT")
    assert.strictEqual((await first.exit).code, 130)
    assert.isBelow(performance.now() - stoppedAt, 1_000)
    assert.match(first.stderr(), /Stopped\. Every answer is kept in .*results\.jsonl; run the same command again/)
    assert.isFalse(existsSync(join(out, "run.lock")))
    const kept = resultsIn(out)
    assert.isAtLeast(kept.length, 20)
    assert.isBelow(kept.length, calls)
    for (const line of kept)
      assert.hasAllKeys(JSON.parse(line), ["agent", "step", "key", "model", "usage", "stop", "text", "when"])
    const before = await until(({ inFlight }) => inFlight === 0)
    assert.isAtLeast(before.aborted, 1)

    const second = await run(out, env).exit
    assert.strictEqual(second.code, 0)
    assert.deepInclude(doneOf(second.lines), { complete: true, calls: calls - kept.length, reused: kept.length })
    const after = await until(({ inFlight }) => inFlight === 0)
    assert.strictEqual(after.requests - after.rejected, before.requests - before.rejected + calls - kept.length)
    assert.deepStrictEqual(resultsIn(out).slice(0, kept.length), kept)
    assert.strictEqual(new Set(resultsIn(out).map((line) => (JSON.parse(line) as { key: string }).key)).size, calls)
    server.child.kill("SIGINT")
    await server.exit
  })

  it("stops as at Ctrl-C when its output is closed, as by head", async () => {
    const { env, server, until } = await provider("--input-tokens-per-minute", "200000", "--latency", "4000")
    const out = join(at, "piped")
    const piped = run(out, env)
    await piped.line((line) => (line.includes(`"answered"`) ? true : undefined))
    piped.child.stdout!.destroy()
    assert.strictEqual((await piped.exit).code, 130)
    assert.match(piped.stderr(), /(^|\n)\nStopped\. Every answer is kept in .*\n$/)
    assert.isFalse(existsSync(join(out, "run.lock")))
    assert.isAtLeast(resultsIn(out).length, 1)
    await until(({ inFlight }) => inFlight === 0)
    server.child.kill("SIGINT")
    await server.exit
  })

  it("writes a report to a pipe, which has no path", () => {
    const command = `"${process.execPath}" --conditions=@floodgate/source packages/cli/src/bin.ts forecast --report /dev/fd/3`
    const report = execFileSync("sh", ["-c", `${command} 3>&1 >/dev/null 2>&1 | cat`], { cwd: root, encoding: "utf8" })
    assert.match(report, /^<!doctype html>/)
    assert.isTrue(report.trimEnd().endsWith("</html>"))
  })

  it("locks its folder, and takes over the lock of a killed run", async () => {
    const slow = await provider("--latency", "10000000")
    const quick = await provider("--input-tokens-per-minute", "2000000", "--latency", "100")
    const out = join(at, "held")
    const first = run(out, slow.env, "--agents", "1")
    await first.line((line) => (line.includes(`"asked"`) ? true : undefined))
    const second = run(out, quick.env, "--agents", "1")
    assert.strictEqual((await second.exit).code, 3)
    assert.strictEqual(
      second.stderr(),
      `floodgate: another run (process ${first.child.pid}) writes to ${out}: wait for its end, or choose another folder. ` +
        `If there is no such run, delete ${join(out, "run.lock")}\n`
    )
    first.child.kill("SIGKILL")
    await first.exit
    assert.isTrue(existsSync(join(out, "run.lock")))
    const third = await run(out, quick.env, "--agents", "1").exit
    assert.strictEqual(third.code, 0)
    assert.deepInclude(doneOf(third.lines), { complete: true, calls: 6 })
    assert.isFalse(existsSync(join(out, "run.lock")))
    for (const { server } of [slow, quick]) {
      server.child.kill("SIGINT")
      await server.exit
    }
  })
})

describe("floodgate run with a wrong address, key or model", () => {
  const connect = "could not connect to the provider"
  const blocked =
    "the call failed before the provider answered (the runtime never connects to this port, which fetch blocks"
  it.each([
    // Nobody listens on this port.
    ["http://127.0.0.1:59999", `${connect}: ECONNREFUSED (http://127.0.0.1:59999); check the base URL`],
    ["http://nowhere.invalid", `${connect}: ENOTFOUND (http://nowhere.invalid); check the base URL`],
    ["http://127.0.0.1:1", `${blocked}: http://127.0.0.1:1; check the base URL)`],
    ["https://SERVER", `${connect}: ERR_SSL_WRONG_VERSION_NUMBER (https://`],
    ["http://SERVER", "not authenticated (invalid x-api-key); check the API key"],
    ["http://SERVER", "not found (model: claude-none); check the model's name", "test", "claude-none"]
  ])(
    "says so in one line for all agents, without a retry, and exits with 1: %s, %s",
    async (address, says, key = "secret-key", model = "claude-sonnet-5") => {
      const at = mkdtempSync(join(tmpdir(), "floodgate-"))
      const { server, stats, url } = await provider()
      const baseUrl = address.replace("SERVER", new URL(url).host)
      const env = { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: baseUrl }
      const args = ["run", join(root, "README.md"), "--prompt", "x", "--yes", "--agents", "2", "--model", model]
      const { exit, stderr } = floodgate(args, env, at)
      const { code, lines } = await exit
      assert.strictEqual(code, 1)
      assert.match(stderr(), /^floodgate: .*\n$/)
      assert.isTrue(stderr().startsWith(`floodgate: ${says}`), stderr())
      assert.notInclude(stderr(), "secret-key")
      assert.match(lines.join("\n"), /^2 agents, .*\nAnswers come from http.*$/)
      assert.isAtMost((await stats()).requests, 2)
      server.child.kill("SIGINT")
      await server.exit
      rmSync(at, { recursive: true })
    },
    60_000
  )
})
