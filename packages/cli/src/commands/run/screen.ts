/**
 * Shows a run: a picture that is redrawn in place on a terminal, plain lines, JSON lines for programs, or nothing.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Terminal from "effect/Terminal"
import * as Budget from "floodgate/Budget"
import * as Words from "floodgate/internal/words"
import * as Painter from "../painter.ts"
import * as Print from "@floodgate/gateway/internal/print"
import * as Eta from "./eta.ts"
import type { RunEvent } from "./pipeline.ts"
import * as View from "./view.ts"

/** A way to show a run. */
export type DisplayMode = "live" | "plain" | "json" | "quiet"

/** The parts of a run that are shown. */
interface ShownRun {
  /** By name, with the bytes of their documents. */
  readonly agents: ReadonlyMap<string, number>
  readonly calls: number
}

/** Folds the events of a run into the state of its view. */
const folding = Effect.fnUntraced(function* ({ agents, calls }: ShownRun) {
  const startedAt = yield* Clock.currentTimeMillis
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => (now - startedAt) / 1_000)
  let state = View.start(agents, calls)
  const fold = (event: RunEvent) =>
    Effect.map(seconds, (at) => {
      state = View.step(state, event, at)
    })
  return { fold, seconds, state: () => state }
})

/** A line for each answer and each kind of failure. If many agents fail in the same way, one line says so for all. */
const plain = Effect.fnUntraced(function* (run: ShownRun) {
  const { fold, seconds, state } = yield* folding(run)
  const failures = new Set<string>()
  let alike = 0
  yield* Effect.addFinalizer(() =>
    alike === 0 ? Effect.void : Print.out(`${Words.counted(alike, "more agent")} failed in the same way`)
  )
  return Effect.fnUntraced(function* (event: RunEvent) {
    yield* fold(event)
    if (event.event === "ended" && event.failure !== undefined) {
      const kind = event.failure.replaceAll(/req_\w+|\d+/g, "")
      if (failures.has(kind)) {
        alike++
        return
      }
      failures.add(kind)
    }
    const line = View.plain(state(), event, yield* seconds)
    if (line !== undefined) yield* Print.out(line)
  })
})

const frame = "100 millis"
/** Forecasts are made less often than frames, because one of many calls takes as long as many frames. */
const forecastSeconds = 1

/** Draws a picture in place. The last one stays. */
const live = Effect.fnUntraced(function* (run: ShownRun) {
  const terminal = yield* Terminal.Terminal
  const budget = yield* Budget.TokenBudget
  const { fold, seconds, state } = yield* folding(run)
  const painter = Painter.make(terminal)
  let foreseen: { readonly at: number; readonly left: number | undefined } = { at: -Infinity, left: undefined }
  const draw = Effect.gen(function* () {
    const at = yield* seconds
    const status = yield* budget.status
    if (at - foreseen.at >= forecastSeconds) {
      foreseen = { at, left: Eta.left(View.ahead(state(), at), state().learned, status, run.agents.size - 1) }
    }
    const left = foreseen.left === undefined ? undefined : Math.max(0, foreseen.left - (at - foreseen.at))
    yield* painter.draw(View.draw(state(), { ...(yield* Painter.sizeOf(terminal)), seconds: at, status, left }))
  })
  // Runs after the fiber that draws has ended: finalizers run in the reverse order.
  yield* Effect.addFinalizer(() => Effect.andThen(draw, painter.end))
  yield* Effect.forkScoped(Effect.repeat(draw, Schedule.spaced(frame)))
  return fold
})

/** Opens a screen, which closes with the scope. Returns the function that takes events. */
export const make = (
  mode: DisplayMode,
  run: ShownRun
): Effect.Effect<
  (event: RunEvent) => Effect.Effect<void>,
  never,
  Terminal.Terminal | Budget.TokenBudget | Scope.Scope
> => {
  switch (mode) {
    case "quiet":
      return Effect.succeed(() => Effect.void)
    case "json":
      return Effect.succeed(Print.json)
    case "plain":
      return plain(run)
    case "live":
      return live(run)
  }
}
