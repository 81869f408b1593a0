import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { ProviderServer } from "floodgate/testing/server"
import { join } from "node:path"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

// Which files are sent to the provider, and the confirmation before that.

const prose = (name: string) => `The file ${name} says that the gate opens when the bucket has room.\n`

const tree = {
  "guide.md": prose("guide"),
  "copy-of-guide.md": prose("guide"),
  "logo.svg": "<svg></svg>\n",
  "package-lock.json": "{}\n",
  "yarn.lock": "# yarn\n",
  "app.min.js": "x()\n",
  "server.pem": "-----BEGIN\n",
  "data.json": '{"a":1}\n',
  "drafts/one.md": prose("one"),
  "drafts/deep/two.md": prose("two"),
  "notes.txt": prose("notes"),
  "binary.bin": "a\u0000b"
}

const project = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const at = yield* fs.makeTempDirectoryScoped({ prefix: "floodgate-" })
  for (const [name, text] of Object.entries(tree)) {
    const path = join(at, "docs", name)
    yield* fs.makeDirectory(join(path, ".."), { recursive: true })
    yield* fs.writeFileString(path, text)
  }
  return { at, docs: join(at, "docs"), out: join(at, "out") }
})

interface Plan {
  readonly files: ReadonlyArray<{ readonly path: string; readonly bytes: number; readonly tokens: number }>
  readonly leftOut: ReadonlyArray<{ readonly path: string; readonly why: string }>
  readonly agents: number
  readonly calls: number
  readonly known: number
  readonly inputTokens: number
  readonly outputTokens: number
  readonly times: ReadonlyArray<{ readonly limits: string; readonly seconds: number | null }>
}

const planOf = (docs: string, out: string, ...flags: ReadonlyArray<string>) =>
  Effect.map(
    floodgate("run", docs, "--prompt", "x", "--out", out, "--dry-run", "--json", ...flags),
    ({ code, err, out }) => {
      assert.strictEqual(code, 0, err)
      return JSON.parse(out) as Plan
    }
  )

const namesIn = (docs: string, { files }: Plan) => files.map(({ path }) => path.slice(docs.length + 1))

describe("floodgate run --dry-run", () => {
  it.effect("reads text, and leaves out drawings, lock files, keys, binaries and duplicates", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const plan = yield* planOf(docs, out)
      assert.deepStrictEqual(namesIn(docs, plan), [
        "copy-of-guide.md",
        "data.json",
        "drafts/deep/two.md",
        "drafts/one.md",
        "notes.txt"
      ])
      const whys = new Map(plan.leftOut.map(({ path, why }) => [path.slice(docs.length + 1), why]))
      assert.deepStrictEqual([...whys].sort(), [
        ["app.min.js", "SVG, lock files and the like"],
        ["binary.bin", "not text"],
        ["guide.md", "the same as another"],
        ["logo.svg", "SVG, lock files and the like"],
        ["package-lock.json", "SVG, lock files and the like"],
        ["server.pem", "SVG, lock files and the like"],
        ["yarn.lock", "SVG, lock files and the like"]
      ])
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.effect("reads what --include matches, except what --exclude matches", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const names = (...flags: ReadonlyArray<string>) =>
        Effect.map(planOf(docs, out, ...flags), (plan) => namesIn(docs, plan))
      assert.deepStrictEqual(yield* names("--include", "*.svg", "--include", "notes.*"), ["logo.svg", "notes.txt"])
      assert.deepStrictEqual(yield* names("--include", "drafts/*.md"), ["drafts/one.md"])
      assert.deepStrictEqual(yield* names("--include", "drafts", "--exclude", "deep"), ["drafts/one.md"])
      assert.deepStrictEqual(yield* names("--exclude", "drafts/", "--exclude", "*.{json,txt}"), ["copy-of-guide.md"])
      const none = yield* floodgate("run", docs, "--prompt", "x", "--include", "*.pdf", "--dry-run")
      assert.strictEqual(none.code, 3)
      assert.match(none.err, /no text files there/)
      const file = join(docs, "notes.txt")
      for (const flags of [["--include", "*.md"], ["--exclude", "*.md"], ["--follow-links"]]) {
        const stray = yield* floodgate("run", file, "--prompt", "x", "--dry-run", ...flags)
        assert.strictEqual(stray.code, 2)
        assert.include(stray.err, `${flags[0]}`)
      }
      const bad = yield* floodgate("run", docs, "--prompt", "x", "--exclude", "/")
      assert.strictEqual(bad.code, 2)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.effect("prints sizes, calls and time, and writes nothing", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { at, docs, out } = yield* project
      const plan = yield* planOf(docs, out, "--max-tokens", "100")
      assert.deepInclude(plan, { agents: 5, calls: 26, known: 0, outputTokens: 2_600 })
      assert.deepStrictEqual(plan.files[0], { path: `${docs}/copy-of-guide.md`, bytes: 66, tokens: 25 })
      assert.isAbove(plan.inputTokens, 26 * 200)
      assert.strictEqual(plan.times[0]!.limits, "the limits of the embedded provider")
      // Five calls of 0.5 s and 100 tokens of 10 ms, and the merge.
      assert.closeTo(plan.times[0]!.seconds!, 6 * 1.5, 0.2)
      const given = yield* planOf(docs, out, "--max-tokens", "100", "--requests-per-minute", "6")
      assert.deepStrictEqual(
        given.times.map(({ limits }) => limits),
        ["the limits given"]
      )
      assert.isAbove(given.times[0]!.seconds!, 150)
      const never = yield* planOf(docs, out, "--input-tokens-per-minute", "10")
      assert.isNull(never.times[0]!.seconds)

      const { out: text } = yield* floodgate("run", docs, "--prompt", "x", "--out", out, "--dry-run")
      for (const line of [
        "Would go to the embedded simulated provider, model claude-sonnet-5:",
        `  ${docs}/copy-of-guide.md`,
        `Left out: ${docs}/logo.svg (SVG, lock files and the like)`,
        "Nothing was sent, and nothing was written."
      ]) {
        assert.include(text, line)
      }
      assert.deepStrictEqual(yield* fs.readDirectory(at), ["docs"])
    }).pipe(Effect.scoped, Effect.provide(services()))
  )

  it.effect("compares the tiers if a key but no limit is set, and sends nothing", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const { times } = yield* planOf(docs, out)
      assert.deepStrictEqual(
        times.map(({ limits }) => limits),
        ["Anthropic's tier Start", "Anthropic's tier Build", "Anthropic's tier Scale"]
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(services({ env: { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: "http://192.0.2.1" } }))
    )
  )
})

describe("the question before the first call", () => {
  const quick = ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 } })

  /** Runs one agent over a file against a paid provider, with an answer at the terminal. */
  const asked = (answer: string | undefined, ...flags: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const server = yield* quick
      const { docs, out } = yield* project
      const env = { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: server.url }
      const args = ["run", join(docs, "notes.txt"), "--prompt", "x", "--out", out, "--quiet", ...flags]
      let question = ""
      const heard = (text: string) => (question += text)
      const ran = yield* Effect.provide(floodgate(...args), services({ answer, env, heard }))
      const { requests } = yield* server.stats
      return { ...ran, question, requests, hasSummary: yield* fs.exists(join(out, "summary.md")) }
    }).pipe(Effect.scoped, Effect.provide(services()))

  for (const answer of ["n", "", "maybe", "yesterday"]) {
    it.live(`sends nothing when the answer is "${answer}"`, () =>
      Effect.gen(function* () {
        const { code, err, hasSummary, question, requests } = yield* asked(answer)
        assert.match(question, /^Send this to http:\S+ in 6 calls, at most about [\d,]+ input and .* \[y\/N\] \n?$/)
        // Enter ends the line of the question. A closed input does not.
        assert.strictEqual(question.endsWith("\n"), answer === "")
        assert.strictEqual(code, 1)
        assert.match(err, /floodgate: nothing was sent\. --dry-run shows what would be, --yes sends it/)
        assert.strictEqual(requests, 0)
        assert.isFalse(hasSummary)
      })
    )
  }

  it.live("proceeds after a yes, with --yes, and if nobody can be asked", () =>
    Effect.gen(function* () {
      for (const run of [asked("y"), asked("YES"), asked("n", "--yes"), asked(undefined)]) {
        const { code, err, hasSummary, requests } = yield* run
        assert.strictEqual(code, 0, err)
        assert.strictEqual(requests, 6)
        assert.isTrue(hasSummary)
      }
    })
  )

  it.live("is not asked if nothing is left to send, or if answers are free", () =>
    Effect.gen(function* () {
      const { docs, out } = yield* project
      const args = ["run", join(docs, "notes.txt"), "--prompt", "x", "--out", out, "--max-tokens", "5", "--quiet"]
      // The embedded provider answers.
      assert.strictEqual((yield* Effect.provide(floodgate(...args), services({ answer: "n" }))).code, 0)
      const env = { ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: "http://127.0.0.1:1" }
      assert.strictEqual((yield* Effect.provide(floodgate(...args), services({ env, answer: "n" }))).code, 0)
    }).pipe(Effect.scoped, Effect.provide(services()))
  )
})
