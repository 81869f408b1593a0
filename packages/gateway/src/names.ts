/** The names of rules: those that the configuration gives, or descriptions that reveal no secret; and patterns of names. Pure. */
import { hash } from "node:crypto"
import type { Rule } from "./settings/values.ts"

/** A hash of a text that does not reveal it: 128 bits of its SHA-256. */
export const digestOf = (text: string): string => hash("sha256", text).slice(0, 32)

/** Enough of a hash to tell the rules of a configuration apart. */
const shortDigest = 8

/** The conditions of a rule that may contain a secret: its key, and the values of its headers. */
const secretsOf = ({ headers = {}, key }: Rule): string | undefined =>
  key === undefined && Object.keys(headers).length === 0
    ? undefined
    : digestOf(JSON.stringify([key, Object.entries(headers)]))

/** Describes the callers of a rule without its secrets. */
const callersOf = ({ agent, headers = {}, key, model }: Rule, keys = "some keys"): string => {
  const parts = [
    ...(agent === undefined ? [] : [`agent ${agent}`]),
    ...(model === undefined ? [] : [`model ${model}`]),
    ...Object.keys(headers).map((name) => `some ${name}`),
    ...(key === undefined ? [] : [keys])
  ]
  return parts.length === 0 ? "all callers" : `callers with ${parts.join(", ")}`
}

/**
 * The name of a rule for people. A rule without a name is described by its conditions. A hash stands for those that may contain
 * a secret, so that two such rules have different names, and a rule has the same one in every process. Where the gateway has keys
 * of its own, a rule names them, which is no secret.
 */
export const labelOf = (rule: Rule, hasKeys: boolean): string => {
  if (rule.name !== undefined) return rule.name
  const secrets = secretsOf(hasKeys ? { ...rule, key: undefined } : rule)
  const callers = callersOf(rule, hasKeys ? `key ${rule.key}` : undefined)
  return secrets === undefined ? callers : `${callers} (${secrets.slice(0, shortDigest)})`
}

/** Identifies the amounts of an unnamed rule in a stored state. */
export const conditionsOf = (rule: Rule): string => {
  const secrets = secretsOf(rule)
  const callers = callersOf(rule)
  return secrets === undefined ? callers : `${callers} ${secrets}`
}

/** The name of a key by its identity: the name of a gateway's own key, or else the beginning of a hash. */
export const keyNameOf = (identity: string): string => {
  if (identity === "") return "unknown"
  return identity.startsWith(ownKey) ? identity.slice(ownKey.length) : `key-${identity.slice(0, shortDigest)}`
}

/** Begins the identity of a gateway's own key. */
export const ownKey = "name "

/** Identifies the amounts of a rule in a stored state. A rule with a name keeps them when its conditions change. */
export const idOf = (rule: Rule): string => (rule.name === undefined ? conditionsOf(rule) : `rule ${rule.name}`)

/** Compiles a pattern, in which `*` stands for any characters. Callers choose the text, so matching must not backtrack. */
export const matcherOf = (pattern: string | undefined): ((text: string) => boolean) => {
  if (pattern === undefined) return () => true
  const [first = "", ...parts] = pattern.toLowerCase().split("*")
  const last = parts.pop()
  return (text) => {
    const value = text.toLowerCase()
    if (last === undefined) return value === first
    if (!value.startsWith(first) || !value.endsWith(last)) return false
    let from = first.length
    for (const part of parts) {
      const found = value.indexOf(part, from)
      if (found < 0) return false
      from = found + part.length
    }
    return from + last.length <= value.length
  }
}

/** The end of the name of a cap for each agent, key or job, if its rule has a name. */
export const suffixOf = ({ name }: Rule): string => (name === undefined ? "" : ` (${name})`)
