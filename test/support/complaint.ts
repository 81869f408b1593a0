/** The error for bad arguments, whether an entry point throws it, rejects with it or dies of it. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim } from "floodgate/testing"

const live = Layer.mergeAll(Governor.layer(), LlmClient.layerProvider(), Agents.layer).pipe(
  Layer.provideMerge(Layer.merge(Budget.layer(), ProviderSim.layer()))
)

const run = (effect: Effect.Effect<unknown, unknown, unknown>): Effect.Effect<unknown, unknown> =>
  Effect.scoped(Effect.provide(effect, live) as Effect.Effect<unknown, unknown, Scope.Scope>)

const settled = (made: unknown): Effect.Effect<unknown, unknown> => {
  if (Layer.isLayer(made)) return run(Layer.build(made as Layer.Layer<unknown>))
  if (Stream.isStream(made)) return run(Stream.runDrain(made))
  if (Effect.isEffect(made)) return run(made as Effect.Effect<unknown>)
  if (made instanceof Promise) return Effect.tryPromise({ try: () => made, catch: (error) => error })
  return Effect.void
}

/** The message of the error that a function causes, or "no complaint". */
export const complaint = (make: () => unknown): Effect.Effect<string> =>
  Effect.suspend(() => settled(make())).pipe(
    Effect.exit,
    Effect.map((exit) => (Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "no complaint")),
    // A bad value from `Config` fails with a ConfigError, which wraps the message.
    Effect.map((text) => text.replace(/^ConfigError\(SchemaError\((.*)\)\)$/s, "RangeError: $1"))
  )
