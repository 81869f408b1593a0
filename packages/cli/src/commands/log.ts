/** Prints log messages of the library on standard error, because standard output is for the result. */
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { innermost } from "./errors.ts"
import { Room } from "./print.ts"
import { printable, wrap } from "./text.ts"

const wordOf = (part: unknown): string => {
  if (part instanceof Error) return `(${innermost(part)})`
  return typeof part === "string" ? part : JSON.stringify(part)
}

const textOf = (message: unknown): string => (Array.isArray(message) ? message : [message]).map(wordOf).join(" ")

const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
  const text = textOf(message)
  const level = logLevel === "Info" ? "" : `${logLevel.toLowerCase()}: `
  const why = cause.reasons.length === 0 ? "" : ` (${innermost(Cause.squash(cause))})`
  const line = printable(`floodgate: ${level}${text}${why}`.replaceAll(/\s*\n\s*/g, " "))
  fiber.getRef(Console.Console).error(wrap(line, fiber.getRef(Room).stderr))
})

/** The logger of the tool. */
export const layer: Layer.Layer<never> = Logger.layer([logger])
