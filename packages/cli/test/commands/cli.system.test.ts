import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as PlatformError from "effect/PlatformError"
import * as Sink from "effect/Sink"
import * as Stdio from "effect/Stdio"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join, relative } from "node:path"
import * as Cli from "../../src/commands/index.ts"
import { root } from "../../../../test/support/modules.ts"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

const folder = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ prefix: "floodgate-" }))

const document = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const at = yield* folder
  yield* fs.makeDirectory(join(at, "docs/.hidden"), { recursive: true })
  yield* fs.makeDirectory(join(at, "docs/node_modules"), { recursive: true })
  yield* fs.writeFileString(join(at, "docs/a.md"), "The gate opens when the bucket has room.\n\n".repeat(50))
  yield* fs.writeFileString(join(at, "docs/.hidden/b.md"), "hidden")
  yield* fs.writeFileString(join(at, "docs/node_modules/c.md"), "somebody else's")
  yield* fs.writeFile(join(at, "docs/d.png"), new Uint8Array([137, 80, 78, 71, 0, 1, 2]))
  yield* fs.symlink(join(at, "docs"), join(at, "docs/round"))
  yield* fs.symlink(join(at, "nowhere"), join(at, "docs/broken"))
  return { at, docs: join(at, "docs"), out: join(at, "out") }
})

describe("floodgate", () => {
  it("has the version of the package", () => {
    const { version } = JSON.parse(readFileSync(join(root, "packages/cli/package.json"), "utf8")) as { version: string }
    assert.strictEqual(Cli.version, version)
  })

  it.effect("shows its commands with examples if it is called without one", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* floodgate()
      assert.strictEqual(code, 0)
      assert.strictEqual(err, "")
      for (const text of ["storm", "run", "provider", "EXAMPLES", "floodgate run docs --prompt"])
        assert.include(out, text)
    }).pipe(Effect.provide(services()))
  )

  it.effect("lists its commands by what a user wants to do, and each of them once", () =>
    Effect.gen(function* () {
      const { out } = yield* floodgate("--help")
      const listed = out
        .split("\n")
        .flatMap(
          (line) => /^(?:(TRY|OPERATE|PLAN|RESEARCH):?|  ([a-z]+)  +[A-Z].*)$/.exec(line)?.slice(1).join("") ?? []
        )
      const expected =
        "TRY try provider run OPERATE gateway status caps jobs tickets doctor PLAN forecast advise mcp RESEARCH storm"
      assert.deepStrictEqual(listed, expected.split(" "))
    }).pipe(Effect.provide(services()))
  )

  it.effect("prints the help of a command that follows `help`", () =>
    Effect.gen(function* () {
      for (const command of [[], ["run"], ["gateway", "key", "new"]]) {
        const found = yield* floodgate("help", ...command)
        assert.deepStrictEqual(found, yield* floodgate(...command, "--help"))
        assert.strictEqual(found.code, 0)
      }
    }).pipe(Effect.provide(services()))
  )

  it.effect("prints completions for a shell", () =>
    Effect.gen(function* () {
      const { code, out } = yield* floodgate("--completions", "bash")
      assert.strictEqual(code, 0)
      assert.include(out, "--input-tokens-per-minute")
    }).pipe(Effect.provide(services()))
  )

  const wrong: ReadonlyArray<readonly [args: ReadonlyArray<string>, says: RegExp]> = [
    [["runn"], /^floodgate: unknown command "runn": did you mean "run"\?\n/],
    [["run"], /Missing required argument: path/],
    [["run", "docs"], /--prompt TEXT or --prompt-file FILE/],
    [["run", "docs", "--prompt", "x", "--prompt-file", "y"], /not both/],
    [["run", "docs", "--agentz", "3"], /^floodgate: unknown flag "--agentz": did you mean "--agents"\?\n/],
    [
      ["gateway", "--confg", "x"],
      /^floodgate: unknown flag "--confg": did you mean "--config"\?\nSee floodgate gateway --help/
    ],
    [["run", "docs", "--prompt", "x", "--agents", "1.5"], /--agents: expected a whole number above 0, got "1\.5"\n/],
    [["run", "docs", "--prompt", "x", "--agents"], /--agents needs a value: <n>\n/],
    [["run", "docs", "--prompt", "x", "--burst", "10"], /--burst: expected a limit on tokens beside it, got "10"\n/],
    [
      ["provider", "--input-tokens-per-minute", "9", "--window", "fixed", "--burst", "10"],
      /--burst: expected less than the limit of 9 that the window holds, got "10"\n/
    ],
    [["forecast", "docs", "--trace", "t.csv"], /--trace ".*t\.csv" does not apply: the documents are the workload/],
    // Regression: numbers out of range were changed silently, or accepted and never reached.
    [
      ["storm", "all", "--seed", "4294967296"],
      /--seed: expected a whole number from 0 to 4,294,967,295, got "4294967296"\n/
    ],
    [["forecast", "--agents", "1e9"], /--agents: expected at most 1,000,000 calls of all agents, got "1000000000"\n/],
    // Node would listen on every address.
    [["provider", "--host", ""], /--host needs a value: an address or the name of a host\n/],
    [["provider", "--memory-tokens", "1000"], /--memory-tokens: expected --server beside it, got "1000"\n/],
    [["provider", "--server", "tgi"], /--server: expected "vllm" \| "llama\.cpp" \| "ollama", got "tgi"\n/],
    [["provider", "--rejections", "maybe"], /--rejections: expected "free" \| "charged", got "maybe"\n/],
    [["storm", "--scenario", "incidnt"], /--scenario: unknown value "incidnt": did you mean "incident"\?\n/],
    [
      ["status", "--redis", "user:secret@localhost"],
      /--redis: expected an address .*, got something else \(not shown\)\n/
    ],
    [["storm", "--report", "none/"], /--report: expected a file, got "none\/"\n/],
    [["storm", "--seed", "\u001b[31m"], /--seed: expected .*, got "\uFFFD\[31m"/]
  ]
  for (const [args, says] of wrong) {
    it.effect(`exits with 2, the error and a hint at the help for "${args.join(" ")}"`, () =>
      Effect.gen(function* () {
        const { code, err, out } = yield* floodgate(...args)
        assert.strictEqual(code, 2)
        assert.match(err, says)
        assert.match(err, /^floodgate: /)
        assert.match(err, /\nSee floodgate.* --help$/)
        assert.strictEqual(out, "")
      }).pipe(Effect.provide(services()))
    )
  }

  it.effect("fails with 3 and one line when a document is missing", () =>
    Effect.gen(function* () {
      const { code, err } = yield* floodgate("run", "no/such/file.md", "--prompt", "x", "--out", "/dev/null/out")
      assert.strictEqual(code, 3)
      assert.strictEqual(err, "floodgate: no/such/file.md: there is no such file or folder; check the path")
    }).pipe(Effect.provide(services()))
  )

  it.effect("fails with 3 and one line when there is nothing to read, or nowhere to write", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { at, docs } = yield* document
      yield* fs.makeDirectory(join(at, "empty"))
      const empty = yield* floodgate("run", join(at, "empty"), "--prompt", "x", "--out", join(at, "o"))
      assert.strictEqual(empty.code, 3)
      assert.match(empty.err, /^floodgate: .*empty: no text files there/)
      // Some editors save an empty file as a byte order mark.
      yield* fs.writeFileString(join(at, "empty/mark.md"), "\uFEFF")
      const mark = yield* floodgate("run", join(at, "empty"), "--prompt", "x", "--out", join(at, "o"))
      assert.strictEqual(mark.code, 3)
      const below = join(at, "docs/a.md/out")
      const nowhere = yield* floodgate("run", docs, "--prompt", "x", "--out", below)
      assert.strictEqual(nowhere.code, 3)
      assert.strictEqual(
        nowhere.err.split("\n").at(-1),
        `floodgate: cannot write ${below}: a part of it is a file; choose another --out`
      )
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  for (const [command, flag, path, why] of [
    ["run", "--report", "docs", "it is a folder"],
    ["storm", "--report", "docs/a.md/report.html", "a part of it is a file"],
    ["storm", "--svg", "docs/a.md/images", "a part of it is a file"],
    ["forecast", "--report", "docs", "it is a folder"],
    ["storm all", "--report", "docs", "it is a folder"],
    ["storm all", "--docs", "docs/a.md", "a part of it is a file"]
  ] as const) {
    it.effect(`reports before it works that ${command} cannot write to a ${flag} if ${why}`, () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { at, docs, out } = yield* document
        const report = command === "storm all" && flag !== "--report" ? ["--report", join(at, "lab.html")] : []
        const { code, err } = yield* floodgate(
          ...command.split(" "),
          ...(command === "run" ? [docs, "--prompt", "x", "--out", out] : []),
          ...report,
          flag,
          join(at, path)
        )
        assert.strictEqual(code, 3)
        assert.match(err, new RegExp(`^floodgate: cannot write ${at}/.*: ${why}; choose another ${flag}$`))
        // The command did nothing, and left no files behind.
        assert.deepStrictEqual(yield* fs.readDirectory(at), ["docs"])
      }).pipe(Effect.scoped, Effect.provide(services()))
    )
  }

  it.effect("writes to the target of a link, even if it does not exist yet", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const at = yield* folder
      yield* fs.symlink("target.html", join(at, "link.html"))
      for (let times = 0; times < 2; times++) {
        const { code } = yield* floodgate("forecast", "--report", join(at, "link.html"))
        assert.strictEqual(code, 0)
        assert.strictEqual(yield* fs.readLink(join(at, "link.html")), "target.html")
        assert.include(yield* fs.readFileString(join(at, "target.html")), "floodgate forecast")
      }
      assert.deepStrictEqual((yield* fs.readDirectory(at)).sort(), ["link.html", "target.html"])
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.live("leaves no folder and no half line behind when it is stopped", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const at = yield* folder
      for (const args of [
        ["storm", "all", "--report", join(at, "a/b/report.html"), "--docs", join(at, "c/docs")],
        ["storm", "--scenario", "many", "--report", join(at, "a/b/report.html"), "--svg", join(at, "c/svg")]
      ]) {
        let drawn = ""
        const seen = yield* Deferred.make<void>()
        const write = (text: string | Uint8Array) =>
          Effect.andThen(
            Effect.sync(() => (drawn += text.toString())),
            Deferred.succeed(seen, undefined)
          )
        const terminal = Stdio.layerTest({
          stderrIsTerminal: Effect.succeed(true),
          stderr: () => Sink.forEach(write)
        })
        const fiber = yield* Effect.forkChild(Effect.provide(Cli.runWith(args), terminal))
        yield* Deferred.await(seen)
        yield* Fiber.interrupt(fiber)
        assert.match(drawn, /sdk-2|fixed-retry/)
        assert.isTrue(drawn.endsWith("\r\u001b[2K"))
        assert.deepStrictEqual(yield* fs.readDirectory(at), [])
      }
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.effect("shows no control character of a name, and no pool that nobody named", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* document
      const lost = yield* floodgate("run", "no\u001b[31m\nfile", "--prompt", "x")
      assert.strictEqual(lost.err, "floodgate: no\uFFFD[31m\uFFFDfile: there is no such file or folder; check the path")
      const unwritten = yield* floodgate("run", docs, "--prompt", "x", "--out", `${docs}/a.md/a\nb`)
      assert.match(unwritten.err, /^floodgate: cannot write .*\uFFFDb: a part of it is a file; choose another --out$/m)
      const args = [docs, "--prompt", "x", "--agents", "1", "--out", out, "--input-tokens-per-minute", "10"]
      const { err } = yield* floodgate("run", ...args)
      assert.match(err, /agent-1 failed: The call asks for \d+ input tokens but the budget admits at most 10: split/)
      assert.match(err, /\nThe same command would fail again: first correct what is reported above\.$/)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.effect("reads a file once, whatever paths lead to it, and only one of two with the same content", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { at, docs } = yield* document
      const workloadOf = (...paths: ReadonlyArray<string>) =>
        Effect.map(floodgate("forecast", ...paths), ({ out }) =>
          out.split("\n").findLast((line) => line.startsWith("Workload: "))
        )
      const once = yield* workloadOf(docs)
      yield* fs.symlink("a.md", join(docs, "link.md"))
      yield* fs.symlink(docs, join(at, "other"))
      yield* fs.copyFile(join(docs, "a.md"), join(docs, "copy.md"))
      const ways = [docs, join(at, "other/a.md"), relative("", join(docs, "a.md")), join(docs, "copy.md")]
      assert.strictEqual(yield* workloadOf(...ways), once)
      assert.strictEqual(yield* workloadOf(...ways, "--follow-links"), once)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.effect(
    "refuses a named document that is not text, not a file, or its own report, and an invalid prompt file",
    () =>
      Effect.gen(function* () {
        const { at, docs, out } = yield* document
        const pipe = join(at, "pipe")
        execFileSync("mkfifo", [pipe])
        const utf16 = join(at, "utf16.txt")
        yield* (yield* FileSystem.FileSystem).writeFile(utf16, Buffer.from("\uFEFFWhat is new?", "utf16le"))
        for (const [args, says] of [
          [
            [join(docs, "d.png"), docs, "--prompt", "x", "-q"],
            `${docs}/d.png: it is not text in UTF-8; leave it out, or convert it`
          ],
          [
            [join(docs, "a.md"), "--prompt", "x", "--report", join(docs, "a.md")],
            `${docs}/a.md: the command would write over it; choose another --report or --out`
          ],
          [[pipe, docs, "--prompt", "x"], `${pipe}: it is a pipe, not a file or folder`],
          [[docs, "--prompt-file", pipe], `${pipe}: it is a pipe, not a file`],
          // Some shells redirect output as UTF-16.
          [[docs, "--prompt-file", utf16], `${utf16}: it is not text in UTF-8`],
          [[docs, "--prompt-file", join(at, "none")], `${at}/none: there is no such file or folder; check the path`]
        ] as const) {
          const { code, err } = yield* floodgate("run", ...args, "--out", out)
          assert.strictEqual(code, 3)
          assert.strictEqual(err.split("\n").at(-1), `floodgate: ${says}`)
        }
        for (const command of ["storm", "forecast"]) {
          const { code, err } = yield* floodgate(command, "--trace", pipe)
          assert.strictEqual(code, 3)
          assert.strictEqual(err.split("\n").at(-1), `floodgate: ${pipe}: it is a pipe, not a file`)
        }
      }).pipe(Effect.scoped, Effect.provide(services()))
  )

  for (const [environment, says] of [
    [{ ANTHROPIC_API_KEY: " " }, /^floodgate: ANTHROPIC_API_KEY is blank: set it to your key, or unset it/],
    [
      { ANTHROPIC_API_KEY: "secret", ANTHROPIC_BASE_URL: "localhost" },
      /^floodgate: ANTHROPIC_BASE_URL is not an address: set it to one such as https:/
    ],
    [
      { ANTHROPIC_API_KEY: "first secret" },
      /^floodgate: ANTHROPIC_API_KEY contains white space or other characters that keys never contain/
    ],
    [{ ANTHROPIC_API_KEY: "first\nsecret" }, /^floodgate: ANTHROPIC_API_KEY contains white space or/],
    [{ ANTHROPIC_API_KEY: "secrét" }, /^floodgate: ANTHROPIC_API_KEY contains white space or/],
    ...["http://me:secret@127.0.0.1:9/v", "http://127.0.0.1:9/v?token=secret"].map(
      (url) =>
        [
          { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: url },
          /^floodgate: ANTHROPIC_BASE_URL has more than http:\/\/127\.0\.0\.1:9\/v: no request can be sent to/
        ] as const
    )
  ] as const) {
    it.effect(`fails with 2 and one line when the environment says ${JSON.stringify(environment)}`, () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const { docs, out } = yield* document
        const { code, err } = yield* floodgate("run", docs, "--prompt", "x", "--out", out)
        assert.strictEqual(code, 2)
        assert.match(err, says)
        assert.notInclude(err, "secret")
        assert.isFalse(yield* fs.exists(out))
      }).pipe(Effect.scoped, Effect.provide(services({ env: environment })))
    )
  }

  it.effect("yields many times within a forecast, so that a signal is handled", () =>
    Effect.gen(function* () {
      const turnsOf = Effect.fnUntraced(function* (calls: number) {
        const fiber = yield* Effect.forkChild(Cli.runWith(["forecast", "--agents", "1", "--calls", String(calls)]))
        let turns = 0
        while (fiber.pollUnsafe() === undefined) {
          yield* Effect.yieldNow
          turns++
        }
        return turns
      })
      const few = yield* turnsOf(1)
      // For each of three tiers, 10,000 calls start, end and become figures.
      assert.isAtLeast((yield* turnsOf(10_000)) - few, 3 * 20)
    }).pipe(Effect.provide(services()))
  )

  it.effect("fails with 4 if it cannot listen on the address", () =>
    Effect.gen(function* () {
      const { code, err } = yield* floodgate("provider", "--host", "192.0.2.1")
      assert.strictEqual(code, 4)
      assert.match(
        err,
        /^floodgate: cannot listen on 192\.0\.2\.1:8787: this machine has no such address; choose another --port or --host$/
      )
    }).pipe(Effect.provide(services()))
  )

  // Real HTTP on loopback with the embedded provider, so no test clock.
  it.live("runs agents over documents with the embedded provider, and resumes from finished work", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { docs, out } = yield* document
      const args = ["run", docs, "--prompt", "When does it open?", "--agents", "1", "--max-tokens", "50", "--out", out]
      const first = yield* floodgate(...args)
      assert.strictEqual(first.err, "")
      assert.strictEqual(first.code, 0)
      assert.match(first.out, /^1 agent, 1 file \(3 left out: 2 links, 1 not text\)/)
      assert.match(first.out, /No ANTHROPIC_API_KEY is set: the embedded simulated provider answers, at http:\/\/127/)
      const results = yield* fs.readFileString(join(out, "results.jsonl"))
      assert.strictEqual(results.trim().split("\n").length, 6)
      assert.include(yield* fs.readFileString(join(out, "summary.md")), "The gate opens when the bucket has room.")

      yield* fs.writeFileString(join(out, "results.jsonl"), results.slice(0, -20))
      const second = yield* floodgate(...args, "--json")
      assert.strictEqual(second.code, 0)
      const done = JSON.parse(second.out.split("\n").at(-1)!) as Record<string, unknown>
      assert.deepInclude(done, { event: "done", complete: true, calls: 1, reused: 5 })
      const kept = yield* fs.readFileString(join(out, "results.jsonl"))
      assert.isTrue(kept.startsWith(results.slice(0, -20)))
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  // As above.
  for (const out of ["out", "."]) {
    it.live(`does not read its own output as documents, with --out ${out}`, () =>
      Effect.gen(function* () {
        const { docs } = yield* document
        const own = ["--out", join(docs, out), "--report", join(docs, "report.html")]
        const args = [
          "run",
          docs,
          "--prompt",
          "When does it open?",
          "--agents",
          "1",
          "--max-tokens",
          "50",
          "--json",
          ...own
        ]
        assert.strictEqual((yield* floodgate(...args)).code, 0)
        const again = yield* floodgate(...args)
        const done = JSON.parse(again.out.split("\n").at(-1)!) as Record<string, unknown>
        assert.deepInclude(done, { complete: true, calls: 0, reused: 6 })
      }).pipe(Effect.scoped, Effect.provide(services()))
    )
  }

  /** A disk that is full for one write of a file with this name, after half of the text. Later writes succeed. */
  const fullOnce = (name: string, from: number) =>
    Layer.effect(
      FileSystem.FileSystem,
      Effect.map(FileSystem.FileSystem, (fs) => {
        let writes = 0
        const full = PlatformError.systemError({
          _tag: "Unknown",
          module: "FileSystem",
          method: "writeFileString",
          cause: Object.assign(new Error("no space left on device"), { code: "ENOSPC" })
        })
        const isFull = (path: string): boolean => path.includes(name) && ++writes === from
        const half = (file: FileSystem.File): FileSystem.File =>
          Object.create(file, {
            writeAll: {
              value: (bytes: Uint8Array) =>
                Effect.andThen(file.writeAll(bytes.subarray(0, bytes.length / 2)), Effect.fail(full))
            }
          })
        return FileSystem.FileSystem.of({
          ...fs,
          open: (path, options) =>
            options?.flag === "w" && isFull(path) ? Effect.map(fs.open(path, options), half) : fs.open(path, options),
          writeFileString: (path, text, options) =>
            isFull(path)
              ? Effect.andThen(fs.writeFileString(path, text.slice(0, text.length / 2), options), Effect.fail(full))
              : fs.writeFileString(path, text, options)
        })
      })
    ).pipe(Layer.provide(NodeServices.layer))

  // As above.
  it.live("reports cut answers, even if it otherwise prints only errors", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* document
      const args = ["run", docs, "--prompt", "x", "--agents", "1", "--max-tokens", "3", "--out", out, "-q"]
      const { code, err } = yield* floodgate(...args)
      assert.strictEqual(code, 0)
      assert.strictEqual(err, "floodgate: Cut off at --max-tokens 3: 6 answers; raise it for complete ones")
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.live("starts a new line after one that did not fit on the disk", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* document
      const args = ["run", docs, "--prompt", "When does it open?", "--agents", "2", "--max-tokens", "50", "--out", out]
      const first = yield* floodgate(...args).pipe(Effect.provide(fullOnce("results.jsonl", 2)))
      assert.strictEqual(first.code, 1)
      assert.match(
        first.err,
        /cannot write .*results\.jsonl: the disk is full; choose another --out\nThe work of the other 1/
      )
      const second = yield* floodgate(...args)
      assert.strictEqual(second.code, 0)
      // All results but the torn one: five of one agent, and the first of the other one if that was not torn.
      assert.match(second.out, /Resuming: .*results\.jsonl has [56] answers of this task\nSkipped in .*: 1 line /)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  // As above.
  it.live("keeps the old summary if the new one does not fit on the disk", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { docs, out } = yield* document
      const args = ["run", docs, "--prompt", "When does it open?", "--agents", "1", "--max-tokens", "50", "--out", out]
      yield* floodgate(...args)
      const before = yield* fs.readFileString(join(out, "summary.md"))
      const { code, err } = yield* floodgate(...args).pipe(Effect.provide(fullOnce("summary.md", 1)))
      assert.strictEqual(code, 3)
      assert.strictEqual(err, `floodgate: cannot write ${out}/summary.md: the disk is full; choose another --out`)
      assert.strictEqual(yield* fs.readFileString(join(out, "summary.md")), before)
      assert.deepStrictEqual((yield* fs.readDirectory(out)).sort(), ["results.jsonl", "summary.md"])
    }).pipe(Effect.scoped, Effect.provide(services()))
  )
})
