/**
 * Runs packages that use JavaScript's own timers in the simulated time of a race: the installed files themselves, with our `setTimeout`
 * and `Date` in their scope. No global is replaced, so races can run at the same time.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { compileFunction } from "node:vm"

type Timer = Fiber.Fiber<unknown>

/** The simulated time starts here and not at 0, which packages take for "never". */
const epochMillis = Date.UTC(2026, 0)

/** Timers fire after at least a millisecond, as in Node. */
const delayOf = (millis: number | undefined): number => Math.max(1, Math.trunc(millis ?? 0))

/** The globals for time, on the clock of the fiber. Timers end with the scope. */
const globals = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const fork = Effect.runForkWith(yield* Effect.context<Scope.Scope>())
  const timers = new Set<Timer>()
  const start = (effect: Effect.Effect<unknown>): Timer => {
    const timer = fork(effect)
    timers.add(timer)
    timer.addObserver(() => timers.delete(timer))
    return timer
  }
  const stop = (timer: Timer | undefined): void => timer?.interruptUnsafe()
  yield* Effect.addFinalizer(() => Effect.sync(() => timers.forEach(stop)))
  return {
    Date: { now: () => epochMillis + clock.currentTimeMillisUnsafe() },
    setTimeout: (run: () => void, millis?: number) => start(Effect.delay(Effect.sync(run), delayOf(millis))),
    setInterval: (run: () => void, millis?: number) =>
      start(Effect.forever(Effect.delay(Effect.sync(run), delayOf(millis)))),
    clearTimeout: stop,
    clearInterval: stop
  }
})

/** Turns the imports and exports of a module into a function of `module`, `require` and the globals. */
const asFunction = (text: string): string =>
  text
    .replaceAll(/^import (\w+) from ('[^']+');$/gm, "const { default: $1 } = require($2);")
    .replaceAll(/^import (\{[^}]+\}) from ('[^']+');$/gm, "const $1 = require($2);")
    .replaceAll(/^export default (?=class)/gm, "module.exports.default = ")
    .replaceAll(/^export \{[^}]*\} from '[^']+';$/gm, "")

/**
 * Loads a file of an installed package, which then runs in the time of the fiber. Its imports are loaded as usual, so they must not use
 * timers.
 */
export const load = <A>(file: string): Effect.Effect<A, never, Scope.Scope> =>
  Effect.map(globals, (globals) => {
    const path = createRequire(import.meta.url).resolve(file)
    const module = { exports: {} }
    const parameters = ["module", "exports", "require", ...Object.keys(globals)]
    compileFunction(asFunction(readFileSync(path, "utf8")), parameters, { filename: path })(
      module,
      module.exports,
      createRequire(path),
      ...Object.values(globals)
    )
    return module.exports as A
  })

/** Queues a job, and returns its result. */
export type Add = <A>(job: () => Promise<A>) => Promise<A>

/** Queues an effect in a queue of promises. */
export const queued = <A, E, R>(add: Add, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.contextWith((context) => {
    const run = Effect.runPromiseExitWith(context)
    return Effect.flatten(Effect.promise((signal): Promise<Exit.Exit<A, E>> => add(() => run(self, { signal }))))
  })
