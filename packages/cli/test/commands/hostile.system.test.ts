import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Scope from "effect/Scope"
import { ProviderServer } from "floodgate/testing/server"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import { dirname, join } from "node:path"
import * as Cli from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"
import { isFull } from "../../../../test/support/size.ts"

// Folders prepared by an attacker: links, pipes and giant files where the command reads and writes.

/** A folder with a document, an output folder and a file outside of both, and a provider that answers at once. */
const prepared = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const at = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
  const [docs, out, precious] = [join(at, "docs"), join(at, "out"), join(at, "precious.txt")]
  for (const folder of [docs, out]) Fs.mkdirSync(folder)
  Fs.writeFileSync(join(docs, "one.txt"), "The first document.")
  Fs.writeFileSync(precious, "keep me")
  const { url } = yield* ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 } })
  const floodgate = (...args: ReadonlyArray<string>) =>
    Effect.provide(Cli.floodgate(...args), services({ env: { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: url } }))
  const run = (...more: ReadonlyArray<string>) =>
    floodgate("run", docs, "--prompt", "Say what it is", "--agents", "1", "--out", out, ...more)
  return { at, docs, floodgate, out, precious, run }
})

const live = (name: string, test: Effect.Effect<void, unknown, FileSystem.FileSystem | Scope.Scope>) =>
  it.live(name, () => Effect.provide(Effect.scoped(test), NodeServices.layer))

/** Makes a sparse file of this size. */
const sparse = (path: string, bytes: number): void => {
  Fs.writeFileSync(path, "text\n".repeat(4_000))
  Fs.truncateSync(path, bytes)
}

const pipe = (path: string): void => void execFileSync("mkfifo", [path])

describe("an output folder of somebody else", () => {
  for (const file of ["run.lock", "results.jsonl", "summary.md"]) {
    for (const [what, make] of [
      ["a link to a file", (path: string) => Fs.symlinkSync("../precious.txt", path)],
      ["a link to nothing", (path: string) => Fs.symlinkSync("../new.txt", path)],
      ["a link to itself", (path: string) => Fs.symlinkSync(file, path)],
      ["a folder", (path: string) => Fs.mkdirSync(path)],
      ["a pipe", pipe]
    ] as const) {
      live(
        `is refused where its ${file} is ${what}, and nothing is written`,
        Effect.gen(function* () {
          const { at, out, precious, run } = yield* prepared
          make(join(out, file))
          const { code, err } = yield* run()
          assert.strictEqual(code, 3, err)
          const kind = what.split(" ").slice(0, 2).join(" ")
          assert.strictEqual(err, `floodgate: cannot write ${out}/${file}: it is ${kind}; choose another --out`)
          assert.strictEqual(Fs.readFileSync(precious, "utf8"), "keep me")
          assert.deepStrictEqual(Fs.readdirSync(at).sort(), ["docs", "out", "precious.txt"])
          assert.deepStrictEqual(Fs.readdirSync(out), [file])
        })
      )
    }
  }

  live(
    "is refused if its results are giant, with their size",
    Effect.gen(function* () {
      const { out, run } = yield* prepared
      sparse(join(out, "results.jsonl"), 600e6)
      const { code, err } = yield* run()
      assert.strictEqual(code, 3, err)
      assert.include(err, `cannot read ${out}/results.jsonl: it has 600 MB, and a run reads at most 256 MB`)
    })
  )

  live(
    "keeps a summary.md that no run has written, and loses one of a run",
    Effect.gen(function* () {
      const { out, run } = yield* prepared
      Fs.writeFileSync(join(out, "summary.md"), "My own notes")
      const { code, err } = yield* run()
      assert.strictEqual(code, 3, err)
      assert.include(err, `cannot write ${out}/summary.md: it exists and no run has written it`)
      assert.strictEqual(Fs.readFileSync(join(out, "summary.md"), "utf8"), "My own notes")
      Fs.rmSync(join(out, "summary.md"))
      assert.strictEqual((yield* run()).code, 0)
      Fs.rmSync(join(out, "results.jsonl"))
      assert.strictEqual((yield* run()).code, 0)
    })
  )

  for (const [flag, command, file] of [
    ["--svg", ["storm", "--strategy", "oracle"], "incident-makespan.svg"],
    ["--docs", ["storm", "all"], "figures/lab.md"]
  ] as const) {
    live(
      `is refused where ${file} of ${flag} is a link`,
      Effect.gen(function* () {
        const { at, floodgate, out, precious } = yield* prepared
        Fs.mkdirSync(dirname(join(out, file)), { recursive: true })
        Fs.symlinkSync(precious, join(out, file))
        const report = flag === "--docs" ? ["--report", join(at, "lab.html")] : []
        const { code, err } = yield* floodgate(...command, ...report, flag, out)
        assert.strictEqual(code, 3, err)
        assert.include(err, `cannot write ${out}/${file}: it is a link; choose another ${flag}`)
        assert.strictEqual(Fs.readFileSync(precious, "utf8"), "keep me")
      })
    )
  }
})

describe("a folder of documents of somebody else", () => {
  live(
    "has its links skipped unless a flag or an argument asks for them",
    Effect.gen(function* () {
      const { at, docs, floodgate, out, precious, run } = yield* prepared
      Fs.mkdirSync(join(at, "more"))
      Fs.writeFileSync(join(at, "more/two.txt"), "Another secret.")
      Fs.symlinkSync(precious, join(docs, "link.txt"))
      Fs.symlinkSync("../more", join(docs, "more"))
      const left = yield* run()
      assert.strictEqual(left.code, 0, left.err)
      assert.match(left.out, /^1 agent, 1 file \(2 left out: links\)/)
      const written = Fs.readdirSync(out).map((file) => Fs.readFileSync(join(out, file), "utf8"))
      assert.notMatch(written.join(), /keep me|secret/)
      assert.match((yield* run("--follow-links", "--dry-run")).out, /^3 files/m)
      const named = yield* floodgate("run", join(docs, "link.txt"), "--prompt", "x", "--dry-run")
      assert.match(named.out, /^1 file/m)
    })
  )

  live(
    "has giant files refused by name and size, wherever they are read",
    Effect.gen(function* () {
      const { docs, floodgate, run } = yield* prepared
      const giant = join(docs, "giant.txt")
      sparse(giant, 700e6)
      const says = new RegExp(`^floodgate: ${giant}: it has 700 MB, and (a document has )?at most \\d+ MB`)
      for (const ran of [
        yield* run(),
        yield* floodgate("run", giant, "--prompt", "x"),
        yield* floodgate("run", docs, "--prompt-file", giant),
        yield* floodgate("forecast", giant),
        yield* floodgate("forecast", "--trace", giant),
        yield* floodgate("storm", "--trace", giant)
      ]) {
        assert.strictEqual(ran.code, 3, ran.err)
        assert.match(ran.err, says)
      }
      assert.include((yield* run()).err, "leave it out with --exclude")
      assert.strictEqual((yield* run("--exclude", "giant.txt")).code, 0)
    })
  )

  // It reads 300 MB.
  const slowly: typeof live = isFull ? live : () => {}
  slowly(
    "has its documents counted together, and refused by name if there are too many",
    Effect.gen(function* () {
      const { docs, run } = yield* prepared
      for (const name of ["a", "b", "c", "d", "e"]) {
        Fs.writeFileSync(join(docs, name), Buffer.concat([Buffer.from(name), Buffer.alloc(60e6, "line of text\n")]))
      }
      const { code, err } = yield* run("--dry-run")
      assert.strictEqual(code, 3)
      assert.match(err, /docs\/e: with it the documents have more than 256 MB, .* --exclude$/)
    })
  )

  live(
    "has its pipes skipped, and refused if one is named",
    Effect.gen(function* () {
      const { docs, floodgate, run } = yield* prepared
      pipe(join(docs, "pipe.txt"))
      const ran = yield* run()
      assert.strictEqual(ran.code, 0, ran.err)
      assert.match(ran.out, /^1 agent, 1 file \(1 left out: not a file\)/)
      const named = yield* floodgate("run", join(docs, "pipe.txt"), "--prompt", "x")
      assert.strictEqual(named.code, 3)
      assert.strictEqual(named.err, `floodgate: ${docs}/pipe.txt: it is a pipe, not a file or folder`)
    })
  )

  live(
    "has names and answers whose control characters reach neither terminal nor summary",
    Effect.gen(function* () {
      const { docs, out, run } = yield* prepared
      const hostile = "a\u001b[2J\u202Etxt.evil"
      Fs.writeFileSync(join(docs, hostile), "Read \u009b31m this \u202Eway.\u0007\n".repeat(30))
      const ran = yield* run("--prompt", `Say \u001b]0;x\u0007 it \u2066now`)
      const unsafe = /[^\P{Cc}\n\t]|[\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/u
      for (const text of [
        ran.out,
        ran.err,
        ...Fs.readdirSync(out).map((file) => Fs.readFileSync(join(out, file), "utf8"))
      ]) {
        assert.notMatch(text, unsafe)
      }
      const plan = yield* run("--dry-run")
      assert.notMatch(plan.out, unsafe)
      assert.include(plan.out, "a\uFFFD[2J\uFFFDtxt.evil")
      const asJson = (yield* run("--dry-run", "--json")).out
      assert.notMatch(asJson, unsafe)
      assert.include(
        (JSON.parse(asJson) as { files: ReadonlyArray<{ path: string }> }).files.map(({ path }) => path),
        join(docs, hostile)
      )
    })
  )
})
