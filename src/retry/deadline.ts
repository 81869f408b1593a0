/** Until when attempts may begin. */
import * as Context from "effect/Context"

/** The time, in milliseconds of the `Clock`, after which no further attempt begins; none by default. */
export const Deadline: Context.Reference<number | undefined> = Context.Reference<number | undefined>(
  "floodgate/Retry/Deadline",
  { defaultValue: () => undefined }
)
