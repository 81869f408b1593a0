/** All that a provider may ask of everybody. */
import type { Pushback } from "../LlmError.ts"

export const pushbacks: ReadonlyArray<Pushback> = ["rateLimit", "ramp", "overload"]
