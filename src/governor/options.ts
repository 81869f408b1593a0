/** Checks the options of a governor and of its calls. */
import { priority, weight } from "../budget/options.ts"
import type { Options } from "../Governor.ts"
import { accounting, anObject, type Checks, list, options, policy, span, text, that, wait } from "../input/checks.ts"
import * as Rates from "../prices/rates.ts"
import type { CallOptions } from "./models.ts"

/** The check of each option of a governor. */
export const made: Checks<Options> = { retry: policy, accounting, learned: anObject, prices: Rates.check }

/** The check of each option of a call. */
export const called: Checks<CallOptions> = {
  model: text,
  agent: text,
  weight,
  priority,
  maxWait: wait,
  timeout: span,
  cacheKey: text,
  purses: list(that("a purse, as Spending.make gives it", (purse) => "internals" in Object(purse))),
  retry: policy
}

/** Checks how a call is run. */
export const call = options(called)
