/** Describes problems with settings. Pure. */
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import { Input, shown } from "floodgate/internal"
import { hint } from "floodgate/internal/nearest"
import { key } from "./annotations.ts"

type SettingPath = ReadonlyArray<PropertyKey>

/** A problem and its place, such as `.rules[0].cap`. */
export interface SettingProblem extends NonNullable<ReturnType<Input.Check>> {
  readonly kind: "unknown" | "missing" | "wrong"
  readonly path: SettingPath
}

/** A long name of a setting would fill the terminal. */
const maxName = 200

const stepOf = (key: PropertyKey): string => {
  if (typeof key === "number") return `[${key}]`
  const name = String(key)
  return /^[A-Za-z_$][\w$]*$/.test(name) ? `.${name.slice(0, maxName)}` : `[${shown(name)}]`
}

/** The place of a path: `.rules[0].cap.per`. */
const placeOf = (path: SettingPath): string => path.map(stepOf).join("")

const problem = (kind: SettingProblem["kind"], path: SettingPath, text: string, place = ""): SettingProblem => {
  return { kind, path, text, place: placeOf(path) + place }
}

/** The names of lists and objects. Everything else has a check. */
const kindOf = (issue: SchemaIssue.Issue): string =>
  "ast" in issue && issue.ast._tag === "Arrays" ? "a list" : "an object"

const annotationsOf = (issue: SchemaIssue.Issue): Schema.Annotations.Annotations => {
  if (issue._tag === "Filter") return issue.filter.annotations ?? {}
  const ast = "ast" in issue ? issue.ast : undefined
  return { ...ast?.annotations, ...ast?.checks?.at(-1)?.annotations }
}

/** Names under which people put a key itself. */
const plainKeys: ReadonlySet<PropertyKey> = new Set(["key", "secret", "token", "value"])

const unknown = ({ ast }: SchemaIssue.UnexpectedKey, path: SettingPath): SettingProblem => {
  const name = String(path.at(-1))
  if (path[0] === "keys" && plainKeys.has(name)) {
    return problem("wrong", path, 'remove the key, and set sha256 as the command "key new NAME" prints it')
  }
  const known = ast._tag === "Objects" ? ast.propertySignatures.map(({ name }) => String(name)) : []
  return problem("unknown", path, hint(name, known))
}

/** The problems of a value. Where the library has a check, that check words the problem. */
const problemsOf = (
  issue: SchemaIssue.Issue,
  path: SettingPath = [],
  isSecret = false
): ReadonlyArray<SettingProblem> => {
  const annotations = annotationsOf(issue)
  const isHidden = isSecret || annotations[key.secret] === true
  const inner = innerOf(issue, path, isHidden)
  if (issue._tag === "Pointer" || issue._tag === "Encoding" || inner.some(({ kind }) => kind !== "wrong")) return inner
  const found = (annotations[key.check] as Input.Check | undefined)?.(issue.input)
  if (found === undefined && inner.length > 0) return inner
  const { place, text } =
    found ?? Input.problem(`expected ${annotations["expected"] ?? kindOf(issue)}, got ${shown(issue.input)}`)
  const shownText = isHidden ? text.replace(/, got .*$/s, ", got something else (not shown)") : text
  return [problem("wrong", path, shownText, place)]
}

const innerOf = (issue: SchemaIssue.Issue, path: SettingPath, isSecret: boolean): ReadonlyArray<SettingProblem> => {
  switch (issue._tag) {
    case "Pointer":
      return problemsOf(issue.issue, [...path, ...issue.path], isSecret)
    case "Encoding":
      return problemsOf(issue.issue, path, isSecret)
    case "Composite":
    case "AnyOf":
      return issue.issues.flatMap((each) => problemsOf(each, path, isSecret))
    case "UnexpectedKey":
      return [unknown(issue, path)]
    case "MissingKey":
      return [problem("missing", path, "expected a value, got undefined")]
    default:
      return []
  }
}

/** Deeper than any setting. The body of a place may have a circle. */
const maxDepth = 8

/** A value without the properties that are undefined, which count as absent. */
const defined = (value: unknown, depth = maxDepth): unknown => {
  if (depth === 0) return value
  if (Array.isArray(value)) return value.map((each) => defined(each, depth - 1))
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  const entries = Object.entries(value).filter(([, each]) => each !== undefined)
  return Object.fromEntries(entries.map(([name, each]) => [name, defined(each, depth - 1)]))
}

/** Decodes a value by a schema, or says everything that is wrong with it. */
export const decode = <S extends Schema.Decoder<unknown>>(schema: S) => {
  // A misspelt setting is an error, because it would have no effect.
  const options = { onExcessProperty: "error", errors: "all", reportInput: true } as const
  const parse = SchemaParser.decodeUnknownResult(schema, options)
  return (value: unknown): Result.Result<S["Type"], ReadonlyArray<SettingProblem>> =>
    Result.mapError(parse(value), (issue) => problemsOf(issue))
}

/** The first problem of a value, as the library words those of its options. */
export const check = (schema: Schema.Decoder<unknown>): Input.Check => {
  const parse = decode(schema)
  return (value) => {
    const result = parse(defined(value))
    if (Result.isSuccess(result)) return undefined
    const [{ kind, path, place, text }] = result.failure as [SettingProblem]
    if (kind !== "unknown") return { place, text }
    return { place: placeOf(path.slice(0, -1)), text: `unknown option ${shown(path.at(-1))}: ${text}` }
  }
}

/** Further problems are only counted. */
const maxProblems = 10

/** Problems in one line. `nameOf` names for people what sets the setting at a place. */
export const sentence = (problems: ReadonlyArray<SettingProblem>, nameOf: (place: string) => string): string => {
  const said = problems.slice(0, maxProblems).map(({ kind, place, text }) => {
    const name = nameOf(place)
    if (kind === "missing") return `"${name}" is missing`
    return kind === "unknown" ? `unknown setting "${name}": ${text}` : `${name}: ${text}`
  })
  const more = problems.length - maxProblems
  return [...said, ...(more > 0 ? [`and ${more} more`] : [])].join("; ")
}
