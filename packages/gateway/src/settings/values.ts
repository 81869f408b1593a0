/** The schemas of values within the configuration. The library's checks word what is wrong with them. */
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import {
  checkCap,
  checkJobCaps,
  durationInput,
  governorChecks,
  Input,
  BudgetChecks,
  placeChecks
} from "floodgate/internal"
import type * as Budget from "floodgate/Budget"
import type * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import type * as Prices from "floodgate/Prices"
import type * as Spending from "floodgate/Spending"
import type * as Trees from "floodgate/Trees"
import { checked, secret } from "./annotations.ts"

/**
 * An optional key. JSON has no `undefined`, but programs may give it, so the types allow it. It is removed before anything is
 * decoded, see `defined`.
 */
export const optional = Schema.optionalKey as unknown as typeof Schema.optional

export const text = (check: Input.Check) => checked(Schema.String, check)
export const secretText = (expected: string, form = /^/) =>
  secret(text(Input.secret(expected, (value) => typeof value === "string" && form.test(value))))
export const flag = checked(Schema.Boolean, Input.flag)

const wholeCheck = (min: number, max: number): Input.Check =>
  Input.number(`an integer from ${min} to ${max}`, (value) => Number.isInteger(value) && value >= min && value <= max)

/** An integer. JSON has no infinity, so a number above `max` is a mistake. */
export const whole = (min: number, max: number) =>
  checked(Schema.Finite, wholeCheck(min, max), { type: "integer", minimum: min, maximum: max })

const inSeconds = SchemaTransformation.transform<Duration.Input, number | string>({
  decode: (given) => (typeof given === "number" ? `${given} seconds` : durationInput(given)),
  encode: (input) => input as string
})

/** A duration. In a file, a number means seconds. */
export const duration = (check: Input.Check) =>
  Schema.Union([Schema.Finite, Schema.String])
    .annotate({ expected: 'a duration such as "4 minutes", or seconds' })
    .pipe(Schema.decodeTo(checked(Schema.Unknown as unknown as Schema.Codec<Duration.Input>, check), inSeconds))

/** A schema for values of a type of the library. */
const ofLibrary =
  <A>() =>
  <S extends Schema.Top>(schema: S, check: Input.Check = Input.anything) =>
    checked(schema, check) as unknown as Schema.Codec<A, S["Encoded"]>

/** Optional values of one kind by their names. */
const each = <K extends string, S extends Schema.Top>(schema: S, ...names: ReadonlyArray<K>) =>
  Object.fromEntries(names.map((name) => [name, optional(schema)])) as { [N in K]: Schema.optional<S> }

/** More than any machine has. */
export const maxCount = 1_000_000

const inFlight = wholeCheck(1, maxCount)

/** A number of calls in flight, or one that is measured. */
export const concurrency = ofLibrary<Budget.Concurrency>()(
  Schema.Union([Schema.Finite, Schema.Literal("measured"), Schema.Struct({ measuredUpTo: whole(1, maxCount) })]),
  (value) => (typeof value === "number" ? inFlight(value) : placeChecks.concurrency(value))
)

const dimension = Schema.Struct({
  ...each(Schema.Finite, "perSecond", "perMinute", "total", "burst", "share"),
  window: optional(Schema.Literals(["bucket", "sliding", "fixed"]))
})
const dimensions = each(dimension, "requests", "inputTokens", "outputTokens", "tokens")

const setOrPools: Input.Check = (value) => {
  const names = Object.keys(Object(value))
  if (names.includes("pools") && names.length > 1) return Input.problem("expected either one set of limits, or pools")
  return undefined
}

/** One set of limits, or `pools`. Not a union, whose errors would name settings that are valid in one of its members. */
export const limits = ofLibrary<Limits.Limits | Limits.Pools>()(
  Schema.Struct({ ...dimensions, pools: optional(Schema.Record(Schema.String, Schema.Struct(dimensions))) }),
  Input.all(setOrPools, BudgetChecks.limits)
)

const reserve = optional(Schema.Literals(["most", "expected"]))

const cap = ofLibrary<Spending.Cap>()(
  Schema.Struct({ dollars: Schema.Finite, per: optional(duration(Input.anything)), reserve }),
  checkCap
)

const jobCaps = ofLibrary<Trees.JobCaps>()(
  Schema.Struct({
    ...each(Schema.Finite, "agents", "atOnce", "perHour", "depth", "tokens", "dollars", "calls"),
    reserve
  }),
  checkJobCaps
)

const rates = {
  input: Schema.Finite,
  output: Schema.Finite,
  ...each(Schema.Finite, "cacheRead", "cacheWrite", "cacheWriteLong")
}

/** Dollars per million tokens. */
const price = ofLibrary<Prices.Price>()(
  Schema.Struct({
    ...rates,
    long: optional(Schema.Struct({ ...rates, above: Schema.Finite })),
    ...each(Schema.Finite, "maxOutput", "context", "fast", "flex"),
    ...each(Schema.String, "source", "asOf")
  }),
  placeChecks.price
)
export const prices = checked(Schema.Record(Schema.String, price), governorChecks.prices)

/** A date, or a time with its zone. */
const isTime = (value: unknown): boolean =>
  typeof value === "string" &&
  Input.isDay(value.slice(0, 10)) &&
  /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/.test(value) &&
  !Number.isNaN(Date.parse(value))

export const Key = Schema.Struct({
  /** The holder of the key. Rules select callers by this name, and the page, metrics and logs show it. */
  name: text(Input.shownName),
  /** The SHA-256 of the key in hexadecimal digits, as `floodgate gateway key new` prints it. */
  sha256: secretText(
    'the SHA-256 of a key in 64 hexadecimal digits, as "floodgate gateway key new NAME" prints it, and not the key itself',
    /^[\da-f]{64}$/i
  ),
  /** When the key stops working: a date such as `2027-01-01`, where its first second in UTC counts, or a time. @default never */
  expires: optional(text(Input.that("a date such as 2027-01-01, or a time such as 2027-01-01T12:00Z", isTime)))
})

export const Rule = Schema.Struct({
  /**
   * The name of the rule, on the page, in metrics, in logs and in refusals. It also identifies what its caps have spent. At most 64
   * characters, and no other rule has it.
   *
   * @default a description of the conditions
   */
  name: optional(text(Input.shownName)),
  /** The name of the agent. */
  agent: optional(text(Input.text)),
  /**
   * The name of the caller's key, if the gateway has `keys`. Otherwise it is the key that the caller sends to the provider, or a
   * pattern that matches only it, such as `*x9Yz`; the access key for AWS, and the project for Vertex AI. A call with several keys
   * then matches by any of them, because only the provider knows which it accepts.
   */
  key: optional(secretText("a string")),
  model: optional(text(Input.text)),
  /** Headers by their names in lower case. */
  headers: optional(secret(Schema.Record(Schema.String, secretText("a string")))),
  /**
   * The share of service, 0.001 to 1000: of a key relative to other keys, if `key` is the only condition; otherwise of a job relative to
   * other jobs of its caller.
   *
   * @default 1
   */
  weight: optional(checked(Schema.Finite, BudgetChecks.weight)),
  /** Higher goes first. @default 1 for interactive calls, -1 for batches, else 0 */
  priority: optional(checked(Schema.Finite, BudgetChecks.priority)),
  /** The cap of all matching callers together. The caps of all matching rules apply. @default no bound */
  cap: optional(cap),
  /** The cap of each agent. A client may use any number of agent names, so also bound its key, or all callers. @default no bound */
  capPerAgent: optional(cap),
  /** The cap of each key. @default no bound */
  capPerKey: optional(cap),
  /**
   * The caps of each job, which is what `x-floodgate-job` names, or a session. On its agents: in all, at once, new ones in an hour, and
   * how deep they may start each other; only the first call of one agent too many is refused, those that have begun go on. On the
   * `tokens`, `dollars` and `calls` of all of them together: these refuse every call.
   *
   * @default no bound
   */
  capPerJob: optional(jobCaps)
})

/**
 * Settings for some callers. A rule applies to a caller if all its conditions (`agent`, `key`, `model`, `headers`) match; a
 * condition that is left out matches every caller. In a text, `*` stands for any characters.
 *
 * @stability unstable
 * @category models
 * @since 0.2.0
 */
export interface Rule extends Schema.Schema.Type<typeof Rule> {}

export const Place = Schema.Struct({
  /** The name of the upstream. */
  upstream: text(Input.text),
  /** Its name in the status, in events and in replies. @default the upstream, with the tier if there is one */
  name: optional(text(placeChecks.name)),
  /** The model's name at this place. @default the name under which it is called */
  model: optional(text(placeChecks.model)),
  /** The provider's tier, such as `flex`, `priority` or `fast`, which has a pool of its own. @default the one that the request names */
  tier: optional(text(placeChecks.tier)),
  /** The account whose limits apply. @default the name of the place */
  account: optional(text(placeChecks.account)),
  /** The price at this place, without the factor of the tier. @default that of `model` in `Prices.published` */
  price: optional(price),
  /** The provider's limits at this place. @default those of the budget */
  limits: optional(ofLibrary<Limits.Limits>()(Schema.Struct(dimensions), placeChecks.limits)),
  /**
   * Calls in flight at once at this place: a number, or `measured` for a server of your own that queues any number of calls.
   *
   * @default that of the budget
   */
  concurrency: optional(concurrency),
  /** Further fields of the body of each request. @default none */
  body: optional(Schema.Record(Schema.String, Schema.Unknown)),
  /** Whether the place takes no new calls, save those that continue what it stores. @default false */
  drain: optional(flag)
})

/** The shares of long windows. */
export const windows = ofLibrary<NonNullable<Governor.Options["windows"]>>()(
  Schema.Record(Schema.String, Schema.Struct({ share: Schema.Finite })),
  governorChecks.windows
)
