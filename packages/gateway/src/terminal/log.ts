/** Prints log messages of the library on standard error, because standard output is for the result. */
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { innermost } from "./errors.ts"
import { Room } from "./print.ts"
import { printable, safeJson, unwrapped, wrap } from "./text.ts"

const wordOf = (part: unknown): string => {
  if (part instanceof Error) return `(${innermost(part)})`
  return typeof part === "string" ? part : JSON.stringify(part)
}

const textOf = (message: unknown): string => (Array.isArray(message) ? message : [message]).map(wordOf).join(" ")

/** Whether a message is a record, which is printed as a line of JSON for programs such as jq. */
const isRecord = (message: unknown): message is object =>
  typeof message === "object" && message !== null && "event" in message

const logger = Logger.make(({ cause, date, fiber, logLevel, message }) => {
  const { error } = fiber.getRef(Console.Console)
  const [record, ...more]: ReadonlyArray<unknown> = Array.isArray(message) ? message : [message]
  if (isRecord(record) && more.length === 0) return error(safeJson({ at: date.toISOString(), ...record }))
  const text = textOf(message)
  const level = logLevel === "Info" ? "" : `${logLevel.toLowerCase()}: `
  const why = cause.reasons.length === 0 ? "" : ` (${innermost(Cause.squash(cause))})`
  const line = printable(unwrapped(`floodgate: ${level}${text}${why}`))
  error(wrap(line, fiber.getRef(Room).stderr))
})

/** The logger of the tool. */
export const layer: Layer.Layer<never> = Logger.layer([logger])
