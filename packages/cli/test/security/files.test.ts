import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { filesIn, folder, run } from "../support/command.ts"

// Folders that somebody else has prepared: links, pipes and giant files where the command reads and writes.

const args = (...more: ReadonlyArray<string>) => ["run", "docs", "--prompt", "Say what it is", "--agents", "1", ...more]

/** A file that looks as large as that, and takes no room. */
const sparse = (path: string, bytes: number): void => {
  const file = Fs.openSync(path, "w")
  Fs.writeSync(file, "text\n".repeat(4_000))
  Fs.ftruncateSync(file, bytes)
  Fs.closeSync(file)
}

/** A command that is refused ends at once; one that is not heard of again fails here, and not the whole file. */
const ends = (cwd: string, list: ReadonlyArray<string>) => Effect.timeout(run(cwd, list), "30 seconds")

describe("a hostile folder", { timeout: 120_000 }, () => {
  describe("of the output", () => {
    for (const [what, make] of [
      ["a link to nothing", (lock: string) => Fs.symlinkSync("nowhere", lock)],
      ["a link to itself", (lock: string) => Fs.symlinkSync("run.lock", lock)],
      ["a link to a file", (lock: string) => Fs.symlinkSync("../docs/one.txt", lock)],
      ["a folder", (lock: string) => Fs.mkdirSync(lock)],
      ["a pipe", (lock: string) => execFileSync("mkfifo", [lock])]
    ] as const) {
      it.live(`whose lock is ${what} is refused by name`, () =>
        Effect.gen(function* () {
          const { inside, root } = yield* folder
          Fs.mkdirSync(Path.join(inside, "out"))
          make(Path.join(inside, "out/run.lock"))
          const ran = yield* ends(inside, args("--out", "out"))
          assert.strictEqual(ran.code, 3, ran.stderr)
          assert.match(ran.stderr, /^floodgate: cannot write out\/run\.lock: it is a (link|folder|pipe).*\n$/)
          assert.deepStrictEqual(filesIn(root), ["inside/docs/one.txt"])
        })
      )
    }

    for (const file of ["summary.md", "results.jsonl"]) {
      for (const [what, target] of [
        ["a file", "precious.txt"],
        ["nothing", "new.txt"]
      ] as const) {
        it.live(`whose ${file} is a link to ${what} outside is refused, and nothing is written there`, () =>
          Effect.gen(function* () {
            const { inside, root } = yield* folder
            Fs.writeFileSync(Path.join(root, "precious.txt"), "keep me")
            Fs.mkdirSync(Path.join(inside, "out"))
            Fs.symlinkSync(Path.join(root, target), Path.join(inside, "out", file))
            const ran = yield* ends(inside, args("--out", "out"))
            assert.strictEqual(ran.code, 3, ran.stderr)
            assert.include(ran.stderr, `floodgate: cannot write out/${file}: it is a link`)
            assert.strictEqual(Fs.readFileSync(Path.join(root, "precious.txt"), "utf8"), "keep me")
            assert.deepStrictEqual(filesIn(root), ["inside/docs/one.txt", "precious.txt"])
          })
        )
      }

      it.live(`whose ${file} is a pipe is refused by name`, () =>
        Effect.gen(function* () {
          const { inside } = yield* folder
          Fs.mkdirSync(Path.join(inside, "out"))
          execFileSync("mkfifo", [Path.join(inside, "out", file)])
          const ran = yield* ends(inside, args("--out", "out"))
          assert.strictEqual(ran.code, 3, ran.stderr)
          assert.include(ran.stderr, `floodgate: cannot write out/${file}: it is a pipe`)
        })
      )
    }

    it.live("that is a link is not entered where no flag names it", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        Fs.mkdirSync(Path.join(root, "outside"))
        Fs.symlinkSync(Path.join(root, "outside"), Path.join(inside, "floodgate-out"))
        const ran = yield* ends(inside, args())
        assert.strictEqual(ran.code, 3, ran.stderr)
        assert.include(ran.stderr, "floodgate: cannot write floodgate-out: it is a link")
        assert.deepStrictEqual(filesIn(root), ["inside/docs/one.txt"])
        const named = yield* run(inside, args("--out", "floodgate-out"))
        assert.strictEqual(named.code, 0, named.stderr)
        assert.include(filesIn(root).join(), "outside/summary.md")
      })
    )

    it.live("whose results.jsonl is giant is refused by name and size", () =>
      Effect.gen(function* () {
        const { inside } = yield* folder
        Fs.mkdirSync(Path.join(inside, "out"))
        sparse(Path.join(inside, "out/results.jsonl"), 600e6)
        const ran = yield* ends(inside, args("--out", "out"))
        assert.strictEqual(ran.code, 3, ran.stderr)
        assert.match(ran.stderr, /^floodgate: cannot read out\/results\.jsonl: .*600 MB.*at most 256 MB/m)
      })
    )

    it.live("with a summary.md that no run has written is left as it is", () =>
      Effect.gen(function* () {
        const { inside } = yield* folder
        Fs.writeFileSync(Path.join(inside, "summary.md"), "My own notes")
        const ran = yield* ends(inside, args("--out", "."))
        assert.strictEqual(ran.code, 3, ran.stderr)
        assert.include(ran.stderr, "floodgate: cannot write summary.md: it is there, and not from a run")
        assert.strictEqual(Fs.readFileSync(Path.join(inside, "summary.md"), "utf8"), "My own notes")
      })
    )

    it.live("with links where lab and storm write their files is refused", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        Fs.writeFileSync(Path.join(root, "precious.txt"), "keep me")
        Fs.mkdirSync(Path.join(inside, "svg"))
        Fs.symlinkSync("../../precious.txt", Path.join(inside, "svg/incident-makespan.svg"))
        const ran = yield* ends(inside, ["storm", "--strategy", "oracle", "--svg", "svg"])
        assert.strictEqual(ran.code, 3, ran.stderr)
        assert.include(ran.stderr, "floodgate: cannot write svg/incident-makespan.svg: it is a link")
        assert.strictEqual(Fs.readFileSync(Path.join(root, "precious.txt"), "utf8"), "keep me")
      })
    )
  })

  describe("of documents", () => {
    it.live("has its links left out, and read where a flag or an argument asks for it", () =>
      Effect.gen(function* () {
        const { inside, root } = yield* folder
        Fs.writeFileSync(Path.join(root, "secret.txt"), "The secret of the machine.")
        Fs.mkdirSync(Path.join(root, "more"))
        Fs.writeFileSync(Path.join(root, "more/two.txt"), "Another secret.")
        Fs.symlinkSync("../../secret.txt", Path.join(inside, "docs/link.txt"))
        Fs.symlinkSync("../../more", Path.join(inside, "docs/more"))
        const left = yield* ends(inside, args("--out", "one"))
        assert.strictEqual(left.code, 0, left.stderr)
        assert.match(left.stdout, /^1 agent, 1 file \(2 left out: links\)/)
        for (const file of filesIn(Path.join(inside, "one"))) {
          assert.notInclude(Fs.readFileSync(Path.join(inside, "one", file), "utf8"), "secret", file)
        }
        const followed = yield* ends(inside, args("--out", "two", "--follow-links"))
        assert.match(followed.stdout, /^1 agent, 3 files,/)
        const named = yield* ends(inside, ["run", "docs/link.txt", ...args("--out", "three").slice(2)])
        assert.match(named.stdout, /^1 agent, 1 file,/)
      })
    )

    it.live("has giant files and pipes refused by name", () =>
      Effect.gen(function* () {
        const { inside } = yield* folder
        sparse(Path.join(inside, "docs/giant.txt"), 700e6)
        const ran = yield* ends(inside, args())
        assert.strictEqual(ran.code, 3, ran.stderr)
        assert.match(ran.stderr, /^floodgate: docs\/giant\.txt: it has 700 MB, and .* at most 64 MB.*--exclude/)
        const named = yield* ends(inside, ["run", "docs/giant.txt", ...args().slice(2)])
        assert.match(named.stderr, /^floodgate: docs\/giant\.txt: it has 700 MB/)
        for (const list of [
          ["run", "docs", "--prompt-file", "docs/giant.txt"],
          ["forecast", "--trace", "docs/giant.txt"],
          ["storm", "--trace", "docs/giant.txt"]
        ]) {
          const other = yield* ends(inside, list)
          assert.strictEqual(other.code, 3, other.stderr)
          assert.match(other.stderr, /^floodgate: docs\/giant\.txt: it has 700 MB/)
        }
        Fs.rmSync(Path.join(inside, "docs/giant.txt"))
        execFileSync("mkfifo", [Path.join(inside, "docs/pipe.txt")])
        const piped = yield* ends(inside, args("--out", "out"))
        assert.strictEqual(piped.code, 0, piped.stderr)
        assert.match(piped.stdout, /^1 agent, 1 file \(1 left out: not a file\)/)
        const asked = yield* ends(inside, ["run", "docs/pipe.txt", ...args().slice(2)])
        assert.strictEqual(asked.code, 3)
        assert.match(asked.stderr, /^floodgate: docs\/pipe\.txt: it is a pipe/)
      })
    )
  })
})
