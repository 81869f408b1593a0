/** `floodgate try`: the official SDK with and without Floodgate, at a limited provider, over real HTTP. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Terminal from "effect/Terminal"
import * as Option from "effect/Option"
import { invalidFlag } from "@floodgate/gateway/internal/errors"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Output from "@floodgate/gateway/internal/output"
import * as Exit from "@floodgate/gateway/internal/exit"
import * as Painter from "./painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import { painting } from "./paint.ts"
import { modeOf } from "./run.ts"
import * as Duel from "./try/duel.ts"
import * as Real from "./try/real.ts"
import * as View from "./try/view.ts"
import { aligned } from "@floodgate/gateway/internal/text"

const look = ({ sides }: Duel.Duel) =>
  Effect.forEach(sides, ({ agents, name, stats, waits }) =>
    Effect.zipWith(stats, waits, (stats, waits): View.SideView => ({ name, agents, stats, waits }))
  )

const frame = "100 millis"
/** The interval of progress lines without a terminal. */
const lines = "5 seconds"

/** Draws the duel in place as long as the scope lasts, or prints a line now and then, on standard error. */
const show = Effect.fnUntraced(function* (duel: Duel.Duel) {
  if ((yield* modeOf({ quiet: false, json: false })) === "live") {
    const terminal = yield* Terminal.Terminal
    const paint = yield* painting
    const painter = Painter.make(terminal, (line) => View.painted(line, paint))
    const draw = Effect.gen(function* () {
      yield* painter.draw(View.draw(yield* look(duel), yield* duel.seconds, yield* Painter.sizeOf(terminal)))
    })
    yield* Effect.addFinalizer(() => Effect.andThen(draw, painter.end))
    return yield* Effect.asVoid(Effect.forkScoped(Effect.repeat(draw, Schedule.spaced(frame))))
  }
  const line = Effect.gen(function* () {
    yield* Effect.sleep(lines)
    yield* Print.err(View.plain(yield* look(duel), yield* duel.seconds))
  })
  yield* Effect.forkScoped(Effect.forever(line))
})

/** The command that calls the tool. In a clone, npm provides the right version of Node. */
const self = import.meta.url.endsWith(".ts") ? "npm run -s floodgate --" : "npx floodgate"

/** The commands to try afterwards. Their lines fit into 80 columns. */
export const next = [
  "",
  "Next:",
  ...aligned([
    [`  ${self} provider`, "this provider for a client"],
    [`  ${self} run docs --prompt "..."`, "agents over your documents"],
    [`  ${self} storm all --table`, "other clients and conditions"]
  ])
].join("\n")

const report = Effect.fnUntraced(function* (duel: Duel.Duel, isOver: boolean) {
  const looks = yield* look(duel)
  const { inputTokens } = looks[1]!.stats
  yield* Print.out(
    View.summary(looks, { isOver, atLeast: Duel.atLeastSeconds(inputTokens), limit: Duel.limit }).join("\n")
  )
  return View.countsOf(looks[1]!).lost
})

const usualCents = 25
const usualModel = "claude-haiku-5-5"

const flags = {
  real: Flags.toggle("real", "Call the real provider instead, with ANTHROPIC_API_KEY, and write a record of the run"),
  yes: Flags.toggle("yes", "With --real: do not ask first"),
  maxCents: Flags.positive("max-cents", 100_000).pipe(
    Flags.optional(
      `With --real: spend at most so many cents, which a cap of the library holds (default: ${usualCents})`
    )
  ),
  model: Flags.text("model", "the name of a model").pipe(Flags.byDefault("With --real: the model", usualModel)),
  out: Output.flag("out", "file").pipe(
    Flags.byDefault("With --real: the record, without any text of prompts or answers", "floodgate-real.json")
  )
}

/** Refuses a flag that does nothing without --real, so that nobody takes a simulation for a run that cost money. */
const onlyReal = Effect.fnUntraced(function* ({
  maxCents,
  yes
}: {
  readonly maxCents: Option.Option<number>
  readonly yes: boolean
}) {
  const invalid = invalidFlag("try")
  if (Option.isSome(maxCents)) {
    return yield* invalid("maxCents", "nothing: only --real costs anything", String(maxCents.value))
  }
  if (yes) return yield* invalid("yes", "nothing: only --real asks", "true")
})

/** The command. */
export const tryCommand = Command.make("try", flags, ({ real, ...options }) =>
  Effect.gen(function* () {
    if (real) return yield* Real.real({ ...options, maxCents: Option.getOrElse(options.maxCents, () => usualCents) })
    yield* onlyReal(options)
    yield* Print.err(
      "40 agents of 5 calls, with and without Floodgate, which takes about 20 s. Ctrl-C shows the result so far."
    )
    const duel = yield* Duel.make
    yield* Effect.scoped(
      Effect.gen(function* () {
        yield* show(duel)
        yield* Effect.forEach(duel.sides, ({ run }) => run, { concurrency: "unbounded", discard: true })
      })
    ).pipe(Effect.onInterrupt(() => report(duel, false)))
    const lost = yield* report(duel, true)
    yield* Print.out(next)
    if (lost > 0) {
      const what = `${lost} calls were lost with Floodgate, which must not happen`
      return yield* Exit.failure("failed", `${what}: please report it with the output above`)
    }
  }).pipe(Effect.scoped)
).pipe(
  Command.withDescription(
    "Shows in about 20 s what Floodgate does: 40 agents with the official SDK, with and without Floodgate, call a simulated provider over real HTTP. It needs no key and no network, and writes nothing. Ctrl-C shows the result so far. With --real, 40 agents make 200 small calls to the real provider instead, under a cap in cents, and a record of the run is written."
  ),
  Command.withExamples([
    { command: "floodgate try", description: "Needs no key and no network" },
    { command: "floodgate try --real --max-cents 25", description: "Asks first, and needs ANTHROPIC_API_KEY" }
  ])
)
