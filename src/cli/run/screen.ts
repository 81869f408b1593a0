/**
 * Shows a run: a picture that is redrawn in place on a terminal, plain lines elsewhere, JSON lines for machines, or nothing.
 */
import * as Clock from "effect/Clock"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Terminal from "effect/Terminal"
import * as Budget from "../../Budget.ts"
import * as Painter from "../painter.ts"
import * as Eta from "./eta.ts"
import type { Event } from "./pipeline.ts"
import * as View from "./view.ts"

/** How a run is shown. */
export type Mode = "live" | "plain" | "json" | "quiet"

/** Where a run is shown. */
export interface Screen {
  readonly report: (event: Event) => Effect.Effect<void>
  /** Stops drawing; what was drawn last stays. */
  readonly close: Effect.Effect<void>
}

const frame = "100 millis"
/** How often it is forecast what is left. */
const forecastSeconds = 1

/** Opens a screen, which closes with the scope. */
export const make = Effect.fnUntraced(function* (
  mode: Mode,
  run: { readonly agents: ReadonlyMap<string, number>; readonly calls: number }
): Effect.fn.Return<Screen, never, Terminal.Terminal | Budget.TokenBudget | Scope.Scope> {
  const terminal = yield* Terminal.Terminal
  const budget = yield* Budget.TokenBudget
  const startedAt = yield* Clock.currentTimeMillis
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => (now - startedAt) / 1_000)
  let state = View.start(run.agents, run.calls)
  const fold = (event: Event) =>
    Effect.map(seconds, (at) => {
      state = View.step(state, event, at)
    })

  if (mode === "quiet") return { report: () => Effect.void, close: Effect.void }
  if (mode === "json") return { report: (event) => Console.log(JSON.stringify(event)), close: Effect.void }
  if (mode === "plain") {
    // Many agents at one limit fail alike: one line says so for all.
    const failures = new Set<string>()
    let alike = 0
    yield* Effect.addFinalizer(() =>
      alike === 0 ? Effect.void : Console.log(`${View.counted(alike, "more agent")} failed in the same way`)
    )
    const report = Effect.fnUntraced(function* (event: Event) {
      yield* fold(event)
      if (event.event === "ended" && event.failure !== undefined) {
        const kind = event.failure.replaceAll(/req_\w+|\d+/g, "")
        if (failures.has(kind)) {
          alike++
          return
        }
        failures.add(kind)
      }
      const line = View.plain(state, event, yield* seconds)
      if (line !== undefined) yield* Console.log(line)
    })
    return { report, close: Effect.void }
  }

  const painter = Painter.make(terminal)
  let open = true
  /** A forecast of many calls takes as long as many frames. */
  let foreseen: { readonly at: number; readonly left: number | undefined } = { at: -Infinity, left: undefined }
  const draw = Effect.gen(function* () {
    const at = yield* seconds
    const status = yield* budget.status
    if (at - foreseen.at >= forecastSeconds) {
      foreseen = { at, left: Eta.left(View.ahead(state, at), state.learned, status, run.agents.size - 1) }
    }
    const left = foreseen.left === undefined ? undefined : Math.max(0, foreseen.left - (at - foreseen.at))
    const lines = View.draw(state, { ...(yield* Painter.sizeOf(terminal)), seconds: at, status, left })
    if (open) yield* painter.draw(lines)
  })
  const close = Effect.suspend(() => {
    if (!open) return Effect.void
    return Effect.andThen(
      draw,
      Effect.suspend(() => {
        open = false
        return painter.end
      })
    )
  })
  yield* Effect.forkScoped(Effect.repeat(draw, Schedule.spaced(frame)))
  yield* Effect.addFinalizer(() => close)
  return { report: fold, close }
})
