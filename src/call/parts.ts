/** The parts of a governor, which all of its calls share. */
import type * as Effect from "effect/Effect"
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import type { Ask } from "../budget/asking.ts"
import type { Wake } from "../line/waker.ts"
import type { Immediate } from "../domain/estimating.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Events from "../Events.ts"
import type * as Limits from "../Limits.ts"
import type { LlmError } from "../LlmError.ts"
import type { PlausibleUsage } from "./plausible.ts"
import type { CapTurn } from "../money/capLog.ts"
import type { AgentHistory } from "./history.ts"
import type * as Prices from "../Prices.ts"
import type { Policy } from "./retryPolicy.ts"
import type { Conversations } from "./conversations.ts"
import type { PromptCounter } from "./counting.ts"
import type { Breaker } from "./models.ts"
import type { SharedPlaces } from "./place.ts"
import type { PoolRecords } from "./pool.ts"
import type { RetryTokens } from "./retryBudget.ts"
import type { Warmup } from "./warmup.ts"
import type { LongWindows } from "../money/windows.ts"

/** The synchronous forms of Floodgate's own estimator. */
export type EstimatorForms = Immediate<Estimator.Call, Accounting.Actual, Limits.Estimate>

/** The parts of a governor. */
export interface GovernorParts {
  readonly accounting: Accounting.Accounting
  /** Asks the budget without Effect; undefined if another layer has replaced `reserve`. */
  readonly ask: Ask | undefined
  readonly breaker: Breaker | undefined
  readonly budget: Budget.TokenBudget["Service"]
  readonly conversations: Conversations
  /** Counts prompts; undefined if that is switched off. */
  readonly counter: PromptCounter | undefined
  readonly estimator: Estimator.Estimator["Service"]
  /** The synchronous forms of `estimate` and of `learn`; undefined for the one that another layer has replaced. */
  readonly estimates: EstimatorForms | undefined
  readonly learns: EstimatorForms | undefined
  /** Runs an effect whose end nobody waits for. */
  readonly fork: (effect: Effect.Effect<void>) => unknown
  /** The history on which advice about agents is based; undefined if nothing counts their calls. */
  readonly history: AgentHistory | undefined
  /** Receives each event, if there is an observer. */
  readonly observer: ((event: Events.Event) => void) | undefined
  /** Undefined if no call has places. */
  readonly places: SharedPlaces | undefined
  readonly plausible: PlausibleUsage
  readonly policy: Policy<LlmError>
  readonly pools: PoolRecords
  readonly prices: Prices.Table
  /** Reports that a cap in dollars is reached, or open again. */
  readonly reportCap: (event: CapTurn) => void
  /** The retry budget of the governor's own context, if it has one. */
  readonly retryBudget: RetryTokens | undefined
  readonly wake: Wake
  readonly warmup: Warmup
  readonly windows: LongWindows
}
