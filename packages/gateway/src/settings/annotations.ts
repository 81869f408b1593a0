/** The annotations of a setting's schema: a check, whether it is secret, and the rules for flags, reloads and docs. */
import * as Schema from "effect/Schema"
import type { Input } from "floodgate/internal"

/** The flag of the command that sets a setting. */
export interface FlagRule {
  /** The flag without its dashes. @default the setting in kebab case */
  readonly name?: string | undefined
  /**
   * The kind of its value. A flag for `names` or `addresses` may be repeated; an address stands behind its name, as in
   * `groq=https://...`.
   */
  readonly takes: "number" | "seconds" | "text" | "names" | "addresses"
}

/** The rules of a setting, apart from its type, its check, and its comment. */
export interface SettingRules<A = unknown> {
  /** The value that applies without it. */
  readonly default?: A | undefined
  /** The flag that sets it: its own, the flags for limits that other commands have too, or none, so that only a file can. */
  readonly flag: FlagRule | "limits" | "none"
  /** The variable that sets it, for secrets. @default none */
  readonly variable?: string | undefined
  /** Whether a change takes effect when the configuration is read again, or only when the gateway is started again. */
  readonly change: "reload" | "restart"
}

/** Annotations of schemas: a check that words what is wrong with any value, whether errors may show a value, and the rules. */
export const key = { check: "floodgate/check", secret: "floodgate/secret", setting: "floodgate/setting" } as const

/** A schema whose values must pass a check of the library, which then words all errors. `json` is the check for editors. */
export const checked = <S extends Schema.Top>(schema: S, check: Input.Check, json: Schema.JsonObject = {}): S =>
  schema.check(
    Schema.makeFilter((value: unknown) => check(value) === undefined, { [key.check]: check, toJsonSchema: () => json })
  ) as unknown as S

/** A schema whose values no error shows. */
export const secret = <S extends Schema.Top>(schema: S): S => schema.annotate({ [key.secret]: true }) as unknown as S

/** The schema of a setting with its rules. */
export const setting = <S extends Schema.Top>(schema: S, rules: SettingRules<S["Type"]>): S =>
  schema.annotate({ [key.setting]: rules }) as unknown as S
