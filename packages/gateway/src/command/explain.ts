/** Explains in one line what is wrong with a JSON file, and where. Pure. */
import * as SchemaIssue from "effect/SchemaIssue"
import { nearest } from "floodgate/internal"
import { oneLine } from "../terminal/text.ts"

// -----------------------------------------------------------------------------
// Syntax
// -----------------------------------------------------------------------------

const parsed = (text: string): { readonly value: unknown } | { readonly error: string } => {
  try {
    return { value: JSON.parse(text) }
  } catch (error) {
    return { error: (error as SyntaxError).message }
  }
}

/** Where the parser stopped. Its error omits the position of an unexpected token, so the longest valid beginning is searched. */
const stopOf = (text: string, error: string): number => {
  const stated = / at position (\d+)/.exec(error)?.[1]
  if (stated !== undefined) return Number(stated)
  const isBeginning = (length: number): boolean => {
    const result = parsed(text.slice(0, length))
    return "value" in result || /end of JSON|at position/.test(result.error)
  }
  let [good, bad] = [0, text.length + 1]
  while (bad - good > 1) {
    const middle = Math.floor((good + bad) / 2)
    if (isBeginning(middle)) good = middle
    else bad = middle
  }
  return good
}

/** Parses JSON, or names the line and column of the error. The text is not quoted, because it may contain a secret. */
export const parseJson = (text: string): ReturnType<typeof parsed> => {
  const result = parsed(text)
  if ("value" in result) return result
  const lines = text.slice(0, stopOf(text, result.error)).split("\n")
  const why = result.error.replace(/, (?:\.\.\.)?".*$/s, "").replace(/ in JSON at position.*$/s, "")
  return { error: `line ${lines.length}, column ${lines.at(-1)!.length + 1}: ${oneLine(why)}` }
}

// -----------------------------------------------------------------------------
// Settings
// -----------------------------------------------------------------------------

type Path = ReadonlyArray<PropertyKey>

const maxPlaceLength = 200

/** The place of a setting: `rules[0].cap.per`. */
const placeOf = (path: Path): string => {
  const place = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("")
  return path.length === 0 ? "the whole file" : place.replace(/^\./, "").slice(0, maxPlaceLength)
}

const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value)

const maxShown = 60
/** Settings that may contain a secret. */
const secrets: ReadonlySet<PropertyKey> = new Set(["token", "adminToken", "key", "keys", "credentials", "headers"])

/** The given value, unless it may contain a secret. */
const gotOf = (value: unknown, path: Path): string => {
  const given = valueAt(value, path)
  if ((typeof given === "object" && given !== null) || path.some((key) => secrets.has(key))) return ""
  const text = JSON.stringify(given)
  return `, got ${text.length > maxShown ? `${text.slice(0, maxShown)}...` : text}`
}

const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** Names under which people put a key itself. */
const plain: ReadonlySet<PropertyKey> = new Set(["key", "secret", "token", "value"])

const unknown = (path: Path, known: ReadonlyArray<string>): string => {
  if (path[0] === "keys" && plain.has(path.at(-1)!)) {
    return `"${placeOf(path)}": remove the key, and set sha256 as the command "key new NAME" of the gateway prints it`
  }
  const near = nearest(String(path.at(-1)), known)
  const hint = near === undefined ? `known are ${known.join(", ")}` : `did you mean "${near}"?`
  return `unknown setting "${placeOf(path)}": ${hint}`
}

const problemsOf = (issue: SchemaIssue.Issue, value: unknown, path: Path = []): ReadonlyArray<string> => {
  switch (issue._tag) {
    case "Pointer":
      return problemsOf(issue.issue, value, [...path, ...issue.path])
    case "Composite":
      return issue.issues.flatMap((each) => problemsOf(each, value, path))
    case "UnexpectedKey":
      return [
        unknown(path, issue.ast._tag === "Objects" ? issue.ast.propertySignatures.map(({ name }) => String(name)) : [])
      ]
    case "MissingKey":
      return [`"${placeOf(path)}" is missing`]
    default: {
      const { message } = format(issue).issues[0]!
      return [`${placeOf(path)}: ${message.charAt(0).toLowerCase()}${message.slice(1)}${gotOf(value, path)}`]
    }
  }
}

/** Further problems are only counted. */
const maxProblems = 10

/** What is wrong with a value, in one line. */
export const explain = (issue: SchemaIssue.Issue, value: unknown): string => {
  const problems = problemsOf(issue, value)
  const more = problems.length - maxProblems
  const said = [...problems.slice(0, maxProblems), ...(more > 0 ? [`and ${more} more`] : [])]
  return oneLine(said.join("; "))
}
