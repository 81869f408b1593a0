/** The middleware of the SDK over a budget of its own. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Scope from "effect/Scope"
import * as Exit from "effect/Exit"
import * as Budget from "floodgate/Budget"
import * as Floodgate from "floodgate/anthropic"
import type * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"

export interface Options
  extends
    Omit<Budget.Options, "learned">,
    Omit<Governor.Options, "accounting">,
    NonNullable<Parameters<typeof Floodgate.make>[0]> {}

export interface Installation {
  readonly middleware: Floodgate.Middleware
  readonly status: () => Promise<Budget.BudgetStatus>
  readonly learned: () => Promise<Estimator.Learned>
  readonly dispose: () => Promise<void>
}

export const create = (options: Options = {}): Installation => {
  const { account, accounting, callOptions, countPrompts, idleTimeout, learned, name, retry, ...budget } = options
  const governor = Governor.layer({ countPrompts, learned, retry })
  const runtime = ManagedRuntime.make(Layer.provideMerge(governor, Budget.layer(budget)))
  const scope = Scope.makeUnsafe()
  const installed = Floodgate.make({ account, accounting, callOptions, idleTimeout, name })
  const middleware = runtime.runSync(Scope.provide(installed, scope))
  return {
    middleware,
    status: () => runtime.runPromise(Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)),
    learned: () => runtime.runPromise(Effect.flatMap(Governor.Governor, (governor) => governor.learned)),
    dispose: () => Effect.runPromise(Effect.andThen(Scope.close(scope, Exit.void), runtime.disposeEffect))
  }
}
