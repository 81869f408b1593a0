/** Small decoders of untrusted JSON. None of them throws. */

/** Parses a text as JSON, which may begin with a byte order mark. Returns undefined for anything else. */
export const parseJson = (text: string | undefined): unknown => {
  try {
    return text === undefined ? undefined : JSON.parse(text.startsWith("\ufeff") ? text.slice(1) : text)
  } catch {
    return undefined
  }
}

/** Inserts properties at the beginning of a JSON object. */
export const insertInto = (text: string, properties: string): string => {
  const start = text.indexOf("{") + 1
  return text.slice(0, start) + properties + text.slice(start)
}

/** Whether a value is an object that is not a list. */
export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The value at a path of property names; undefined if the path ends early. */
export const at = (value: unknown, ...path: ReadonlyArray<string>): unknown => {
  let current = value
  for (const name of path) {
    if (!isRecord(current) || !Object.hasOwn(current, name)) return undefined
    current = current[name]
  }
  return current
}

/** The length of a text; 0 for any other value. */
export const characters = (value: unknown): number => (typeof value === "string" ? value.length : 0)

/** A text that is not empty. */
export const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined

/** The longest name that is kept: identifiers of responses, models and users are at most a few hundred characters long. */
const maxNameLength = 512

/** A short text such as an identifier. A longer one is ignored, so that a broken answer cannot fill the memory. */
export const nameOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" && value.length <= maxNameLength ? value : undefined

/** The name at a path in the first of some objects that has one. */
export const firstName = (objects: ReadonlyArray<unknown>, ...path: ReadonlyArray<string>): string | undefined =>
  objects.map((object) => nameOf(at(object, ...path))).find((name) => name !== undefined)

/** The largest amount that is believed: no limit and no usage comes near it. */
export const maxAmount = 1e12

/** A number of tokens or requests: finite, not negative, at most 10^12. */
export const amountOf = (value: unknown): number | undefined =>
  typeof value === "number" && value >= 0 && value <= maxAmount ? value : undefined

/** The largest of several amounts; undefined if none of them is one. */
export const largestOf = (values: ReadonlyArray<unknown>): number | undefined => {
  const amounts = values.flatMap((value) => amountOf(value) ?? [])
  return amounts.length === 0 ? undefined : Math.max(...amounts)
}

/** A list; empty for any other value. */
export const listOf = (value: unknown): ReadonlyArray<unknown> => (Array.isArray(value) ? value : [])
