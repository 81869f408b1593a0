/** Checks the options of a governor and of its calls. */
import { priority, weight } from "../budget/options.ts"
import type { Options } from "../Governor.ts"
import * as Input from "../domain/input/checks.ts"
import * as Rates from "../domain/rates.ts"
import type { CallOptions } from "./models.ts"

/** The check of each option of a governor. */
export const made: Input.Checks<Options> = {
  retry: Input.policy,
  accounting: Input.accounting,
  learned: Input.anObject,
  prices: Rates.check
}

/** The check of each option of a call. */
export const called: Input.Checks<CallOptions> = {
  model: Input.text,
  agent: Input.text,
  weight,
  priority,
  maxWait: Input.wait,
  timeout: Input.span,
  cacheKey: Input.text,
  purses: Input.list(Input.that("a purse, as Spending.make gives it", (purse) => "internals" in Object(purse))),
  retry: Input.policy
}

/** Checks how a call is run. */
export const call = Input.options(called)
