/** Calls that pay from purses, one step after another. */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import type { LlmError } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import type * as Spending from "floodgate/Spending"
import type { LedgerHold, RunningLedger } from "../../src/money/ledger.ts"
import type { Shares, WindowHold } from "../../src/money/account.ts"
import { type LearnedWindow, LongWindows } from "../../src/money/windows.ts"
import { clockAt } from "./clock.ts"
import { Payment } from "../../src/call/payment.ts"
import { ledgerOf } from "../../src/domain/spending/models.ts"

/** A call, and how far it has come. */
export class PayingCall {
  readonly payment = new Payment()
  /** Its holds, in the order in which it took them. */
  private readonly holds: Array<LedgerHold> = []

  constructor(
    purses: ReadonlyArray<Spending.Purse>,
    amount: number,
    clock: Clock.Clock,
    agent = "agent",
    expected = amount
  ) {
    const ledgers = purses.map(ledgerOf<RunningLedger>)
    for (const ledger of ledgers) ledger.clock = clock
    const ask = { max: amount, expected }
    const paying = { agent, priority: 0, weight: 1, wake: (resume: () => void) => resume() }
    this.payment.needs(
      ledgers.map((ledger) => ({
        refused: () => undefined,
        take: () => {
          const hold = ledger.take(paying, ask)
          this.holds.push(hold)
          return hold
        },
        ended: () => new Budget.BudgetError({ reason: new Budget.Denied({ cause: new Error("refused") }) })
      }))
    )
    this.goOn()
  }
  private get last(): LedgerHold | undefined {
    return this.holds.at(-1)
  }
  private readonly goOn = (): void => {
    if (this.payment.advance()) return
    if (this.last?.phase === "waiting") this.last.listen(this.goOn)
    else this.payment.settle(0)
  }
  /** Whether it holds what it asked for. */
  get isPaid(): boolean {
    return this.payment.isPaid
  }
  get state(): "paid" | "waits" | "refused" {
    if (this.isPaid) return "paid"
    return this.last?.phase === "waiting" ? "waits" : "refused"
  }
  /** Why it was refused. */
  get refusal() {
    const refusal = this.last?.refusal
    return refusal?._tag === "CapRefusal" ? refusal : undefined
  }
}

/** The long windows of accounts, and calls that keep to a share of them, one step after another. */
export const windowsWith = (
  shares: number | Shares,
  ...more: ReadonlyArray<LearnedWindow | ((warning: string) => void)>
) => {
  let now = 0
  const windows = new LongWindows(
    clockAt(() => now),
    {
      shares: typeof shares === "number" ? { "5h": { share: shares } } : shares,
      learned: more.filter((window) => typeof window !== "function"),
      triesEvery: 600_000,
      after: () => () => {},
      wake: (resume) => resume(),
      warn: more.find((warn) => typeof warn === "function") ?? (() => {})
    }
  )
  const wake = (resume: () => void) => resume()
  return {
    windows,
    pass: (millis: number) => (now += millis),
    /** A call that is expected to cost so many dollars; none if it does not count towards the windows. */
    ask: (dollars: number | undefined, agent = "agent", account?: string, model = "m"): WindowHold => {
      const units = dollars === undefined ? undefined : dollars * 1e9
      const hold = windows.of(account).take({ agent, priority: 0, weight: 1, wake }, units, model)
      if (hold.phase === "waiting") hold.listen(() => {})
      return hold
    }
  }
}

const live = Governor.layer({
  prices: { m: { input: 1, output: 0, maxOutput: 1 } },
  retry: Retry.make({ attempts: 1 })
}).pipe(Layer.provide(Budget.layerUnlimited))

/** A governed call that may cost `max` dollars, takes this long, and costs `cost`. */
export const paying = (
  purse: Spending.Purse,
  max: number,
  cost: number,
  millis: number
): Effect.Effect<void, LlmError | Budget.BudgetError> =>
  Effect.flatMap(Governor.Governor, (governor) =>
    governor.run(
      { model: "m", bytes: 0, inputTokens: Math.round(max * 1e6), maxTokens: 1 },
      () =>
        Effect.as(Effect.sleep(millis), {
          value: undefined,
          actual: { inputTokens: Math.round(cost * 1e6), outputTokens: 0 }
        }),
      { purses: [purse] }
    )
  ).pipe(Effect.provide(live))
