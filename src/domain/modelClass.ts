/**
 * Which of Claude's models share their limits.
 */

import { nearest } from "./input/nearest.ts"

const claude = /(?<![a-z])(fable|mythos|opus|sonnet|haiku)-(\d{1,2})(?!\d)(?:-(\d{1,2})(?!\d))?/
/** Families of which all models of one major version share their limits. */
const shared = new Set(["fable-5", "mythos-5", "opus-4", "sonnet-4"])

/**
 * The pool of a model, unless a budget has its own rule: for Claude, the class of models that share their limits. Any other model
 * has a pool of its own.
 *
 * **Details**
 *
 * Anthropic gives each class of models its own limits. All models of Fable 5 share theirs, and so do those of Mythos 5, of Opus
 * 4 and of Sonnet 4. Every other model is a class of its own. Source: the notes below the tables of Anthropic's rate limits
 * page, https://platform.claude.com/docs/en/api/rate-limits (2026-10).
 *
 * **Example** (models that share limits, and one that has its own)
 *
 * ```ts doctest
 * import * as Presets from "floodgate/Presets"
 *
 * Presets.poolOf("claude-opus-4-8") // => "opus-4"
 * Presets.poolOf("anthropic.claude-opus-4-5-20251101-v1:0") // => "opus-4"
 * Presets.poolOf("claude-opus-5-5") // => "opus-5-5"
 * Presets.poolOf("gpt-6") // => "gpt-6"
 * ```
 *
 * @stability stable
 * @category presets
 * @since 0.1.0
 */
export const poolOf = (model: string): string => {
  const [, family, major, minor] = claude.exec(model) ?? []
  if (family === undefined || major === undefined) return model
  const line = `${family}-${major}`
  return minor === undefined || shared.has(line) ? line : `${line}-${minor}`
}

/** The model of Claude in a name, such as "opus-4-8", wherever it is served; undefined for other models. */
export const claudeOf = (model: string): string | undefined => {
  const [, ...parts] = claude.exec(model) ?? []
  return parts.length === 0 ? undefined : parts.filter((part) => part !== undefined).join("-")
}

/** Whether a name has nothing but a family and a version. */
const isBare = (name: string): boolean => claude.exec(name)?.[0] === name

/** Whether a name is a class of Claude's models. */
export const isClass = (name: string): boolean => isBare(name) && poolOf(name) === name

/** Whether a name is the name of a model whose pool has a different name. */
export const isModel = (name: string): boolean => (isBare(name) || name.includes("claude-")) && poolOf(name) !== name

const families = ["fable", "mythos", "opus", "sonnet", "haiku"]

/**
 * The class of Claude's models that a misspelt name probably means, as "sonet-5" and "opus5" do: one letter of the family is
 * wrong, or the version is written in another form. Undefined for other names.
 */
export const classMeantBy = (name: string): string | undefined => {
  const [, word = "", major, minor] = /^([a-z]+)[-_ ]?(\d{1,2})(?:[-._](\d{1,2}))?$/i.exec(name) ?? []
  const family = major === undefined ? undefined : nearest(word, families, 1)
  if (family === undefined) return undefined
  const meant = poolOf(`${family}-${major}${minor === undefined ? "" : `-${minor}`}`)
  return meant === name ? undefined : meant
}
