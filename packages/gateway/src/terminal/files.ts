/** Reads text files, with errors for people. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Exit from "./exit.ts"
import { kindOf } from "./output.ts"
import { oneLine } from "./text.ts"

/** The error for a path that cannot be read. */
export const unreadable = (path: string, why: string): Exit.CommandError =>
  Exit.failure("file", `${oneLine(path)}: ${why}`)

const reasonOf = ({ reason }: PlatformError.PlatformError): string => {
  switch (reason._tag) {
    case "NotFound":
      return "there is no such file or folder; check the path"
    case "PermissionDenied":
      return "no permission to read it"
    default:
      return reason.message
  }
}

/** Turns the errors of an effect that reads the path into errors for people. */
export const reading =
  (path: string) =>
  <A, E, R>(effect: Effect.Effect<A, E | PlatformError.PlatformError, R>) =>
    Effect.catchTag(effect, "PlatformError", (error) =>
      Effect.fail(unreadable(path, reasonOf(error as PlatformError.PlatformError)))
    )

/** Bytes in words: 734,003,200 as 734 MB. */
export const sizeText = (bytes: number): string => {
  if (bytes < 1e3) return `${bytes} bytes`
  const [unit, name] = bytes < 1e6 ? [1e3, "KB"] : [1e6, "MB"]
  return `${bytes < 10 * unit ? Math.round((10 * bytes) / unit) / 10 : Math.round(bytes / unit)} ${name}`
}

/** Whether a file is text: there is no zero byte near its start, and it is UTF-8. */
export const isText = (bytes: Uint8Array): boolean => {
  const head = bytes.subarray(0, 8_000)
  if (head.includes(0)) return false
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true })
    return true
  } catch {
    return false
  }
}

/**
 * Reads a text file. Anything but a regular file is refused, because reading it might never end, and so is a file that is too large
 * for the memory.
 */
export const text = Effect.fnUntraced(function* (
  path: string,
  maxBytes: number
): Effect.fn.Return<string, Exit.CommandError, FileSystem.FileSystem> {
  const fs = yield* FileSystem.FileSystem
  const { size, type } = yield* reading(path)(fs.stat(path))
  if (type !== "File") return yield* unreadable(path, `it is ${kindOf(type)}, not a file`)
  if (size > maxBytes) {
    const why = `it has ${sizeText(Number(size))}, and at most ${sizeText(maxBytes)} are read`
    return yield* unreadable(path, why)
  }
  const bytes = yield* reading(path)(fs.readFile(path))
  if (!isText(bytes)) return yield* unreadable(path, "it is not text in UTF-8")
  return new TextDecoder().decode(bytes)
})
