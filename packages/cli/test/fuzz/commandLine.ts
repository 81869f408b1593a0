import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as TestConsole from "effect/testing/TestConsole"
import * as Cli from "../../src/commands/index.ts"
import { services } from "../../../gateway/test/support/services.ts"
import { type Effort, options } from "../../../../test/fuzz/kept.ts"

// For any arguments the tool either runs or prints an error in one line, and never ends with code 70, a bug. There are no files.

const around = Layer.merge(services(), FileSystem.layerNoop({}))

const flags = [
  "--agents --calls --tokens --first-tokens --output-tokens --rate --burst --concurrency --rejections --headers",
  "--window --seed --strategy --trace --speed --scenario --json --prompt --prompt-file --model --max-tokens --out",
  "--cap-tokens --quiet -q --help --input-tokens-per-minute --requests-per-minute --port --host --latency --time-scale",
  "--redis --redis-prefix --watch --report --attempts --calls-per-agent --include --exclude --follow-links --dry-run --yes --max-usd --max-usd-per-day --max-usd-per-month --month-from --wait-for-reset --model -- - --no-json --__proto__ --constructor --agents= --json=maybe"
]
const flag = Schema.Literals(flags.join(" ").split(" "))
const value = Schema.Union([
  Schema.String,
  Schema.Literals(["0", "1", "2", "-1", "0.5", "1e-300", "1e309", "NaN", "Infinity", "9007199254740993", "1000000000"]),
  Schema.Literals([
    "",
    " ",
    "free",
    "charged",
    "oracle",
    "none",
    "sliding",
    "incident",
    "docs",
    "../..",
    "redis://:x@127.0.0.1:1",
    "http://[",
    "__proto__",
    "é"
  ])
])

const input = {
  command: Schema.Literals(["storm", "run", "provider", "forecast", "status", "", "toString", "__proto__"]),
  words: Schema.Array(Schema.Union([flag, value]))
}

/** The arguments of a command, without long races. A server ends with its scope. */
const argsOf = (command: string, words: ReadonlyArray<string>): ReadonlyArray<string> =>
  command === "storm" ? ["storm", "--strategy", "oracle", "--calls", "1", ...words] : [command, ...words]

export const commandLine = (effort: Effort): void => {
  describe("the command line", () => {
    it.live.prop(
      "is understood, or refused with a message",
      input,
      ({ command, words }) =>
        Effect.gen(function* () {
          const code = yield* Cli.runWith(argsOf(command, words)).pipe(
            Effect.as(0),
            Effect.catchTag("ExitError", ({ code }) => Effect.succeed(code)),
            Effect.timeoutOrElse({ duration: "150 millis", orElse: () => Effect.succeed(0) })
          )
          const said = (yield* TestConsole.errorLines).map(String).join("\n")
          assert.include([0, 1, 2, 3, 4], code, said)
          if (code !== 0) assert.match(said, /^floodgate: .+/)
          assert.notMatch(said, /\n\s+at .*:\d+:\d+|undefined|\[object/)
        }).pipe(Effect.provide(around)),
      { ...options(effort), timeout: 600_000 }
    )
  })
}
