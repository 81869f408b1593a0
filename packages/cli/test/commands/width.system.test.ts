import { assert, describe, it } from "@effect/vitest"
import { displayWidth } from "effect/cli/CliOutput"
import * as Effect from "effect/Effect"
import * as TestConsole from "effect/testing/TestConsole"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "../../../../test/support/modules.ts"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Cli from "../../src/commands/index.ts"
import { services } from "../../../gateway/test/support/services.ts"

// No line is wider than the terminal: it would break within a word.

const commands = ["try", "storm", "forecast", "run", "status", "provider", "gateway", "caps", "advise", "mcp", "doctor"]

const linesOf = (args: ReadonlyArray<string>, columns: number) =>
  Effect.gen(function* () {
    yield* Effect.ignore(Cli.runWith(args))
    return [...(yield* TestConsole.logLines), ...(yield* TestConsole.errorLines)].map(String).join("\n").split("\n")
  }).pipe(Effect.provide(services({ columns, env: { TERM: "dumb" } })))

describe("on a narrow terminal", () => {
  for (const args of [
    ["--help"],
    ...commands.map((command) => [command, "--help"]),
    ["storm", "all", "--help"],
    ["storm", "--strategy", "oracle"],
    ["storm", "--scenario", "slow-start", "--strategy", "oracle"],
    ["forecast", "--agents", "100", "--calls", "2"],
    ["forecast", "--tokens-per-second", "60000", "--deadline", "1 minute"],
    ["forecast", "--tokens-per-second", "1"],
    ["run", "README.md", "--prompt", "x", "--dry-run"],
    ["run", "README.md", "--prompt", "x", "--agents", "1000000"],
    ["run", "a file that is not there and whose name is long enough for two lines of a terminal", "--prompt", "x"],
    ["provider", "--host", "192.0.2.1"]
  ]) {
    it.effect(`"${args.join(" ").slice(0, 60)}" breaks between words`, () =>
      Effect.gen(function* () {
        const lines = yield* linesOf(args, 80)
        assert.isAbove(lines.length, 1)
        const long = lines.filter((line) => displayWidth(line) > 80)
        assert.deepStrictEqual(long, [])
      })
    )
  }

  for (const command of ["provider", "storm"]) {
    it.effect(`"${command} --help" fits into 40 columns, except for commands`, () =>
      Effect.gen(function* () {
        const lines = yield* linesOf([command, "--help"], 40)
        const long = lines.filter((line) => displayWidth(line) > 40 && !line.endsWith("\\"))
        assert.deepStrictEqual(long, [])
      })
    )
  }

  it.effect("no line of what is to be copied into a shell is part of another", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(["doctor"], 80)
      const copied = lines.filter((line) => /^ {9}/.test(line)).map((line) => line.trim())
      assert.isAbove(copied.length, 0)
      for (const line of copied) assert.match(line, /^(# |export )/)
    })
  )

  it.effect("help teaches each command with examples", () =>
    Effect.gen(function* () {
      for (const command of commands) {
        const text = (yield* linesOf([command, "--help"], 80)).join("\n")
        assert.match(text, new RegExp(`EXAMPLES\n[^]*floodgate ${command}`))
      }
    })
  )

  it.effect("help names a strategy where it explains it, and not in a list of choices", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(["storm", "--help"], 80)
      const named = lines.filter((line) => /\b(effect-http-limiter|two-places-1-to-4)\b/.test(line))
      assert.deepStrictEqual(
        named.map((line) => line.trim().split(" ")[0]),
        ["two-places-1-to-4", "effect-http-limiter"]
      )
    })
  )

  it.effect("help lists the exit codes, and the guide and the code agree", () =>
    Effect.gen(function* () {
      for (const command of [[], ...commands.map((command) => [command])]) {
        const text = (yield* linesOf([...command, "--help"], 80)).join("\n")
        for (const [code] of Exit.meanings) assert.match(text, new RegExp(`\n  ${code} `))
      }
      const guide = readFileSync(join(root, "docs/guides/command-line.md"), "utf8")
      for (const [code, meaning] of Exit.meanings) assert.include(guide, `| ${code} | ${meaning} |`)
    })
  )
})
