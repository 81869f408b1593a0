/** Finds the credentials that the configuration of a gateway names: in the environment, or in files. */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import type * as Gateway from "../index.ts"
import * as Exit from "../terminal/exit.ts"
import * as Files from "../terminal/files.ts"
import { oneLine } from "../terminal/text.ts"
import { providers, type Settings } from "../settings/index.ts"

/** A credential of an upstream; null if it needs none. */
type Credential = Redacted.Redacted<string> | null

/** The variables that providers' own tools read. */
const usual: Readonly<Record<string, string>> = {
  anthropic: "ANTHROPIC_API_KEY",
  openai: "OPENAI_API_KEY",
  gemini: "GEMINI_API_KEY"
}

/** Longer than any credential. */
const maxBytes = 64 * 1_024

const fail = (place: string, why: string) => Effect.fail(Exit.failure("usage", `${place}: ${why}`))

/** A variable; undefined if it is not set, or empty. */
const variable = (name: string): Effect.Effect<Redacted.Redacted<string> | undefined> =>
  Config.Redacted(name).pipe(
    Effect.map((secret) => {
      const text = Redacted.value(secret).trim()
      return text === "" ? undefined : Redacted.make(text)
    }),
    Effect.orElseSucceed(() => undefined)
  )

const fromVariable = Effect.fnUntraced(function* (place: string, name: string) {
  const unset = `the variable ${name} is not set: set it, or name another source`
  return (yield* variable(name)) ?? (yield* fail(place, unset))
})

const fromFile = Effect.fnUntraced(function* (place: string, path: string) {
  const text = yield* Effect.mapError(Files.text(path, maxBytes), ({ message }) =>
    Exit.failure("file", `${place}: ${message}`)
  )
  if (text.trim() === "") return yield* fail(place, `${oneLine(path)} is empty: write the credential into it`)
  return Redacted.make(text.trim())
})

/** Reads a credential. The text is not quoted, because it may be a credential by mistake. */
const read = (place: string, source: string): Effect.Effect<Credential, Exit.CommandError, FileSystem.FileSystem> => {
  const [, kind, name = ""] = /^(env|file):(.+)$/s.exec(source) ?? []
  if (source === "none") return Effect.succeed(null)
  if (kind === "file") return fromFile(place, name)
  if (kind === "env" && /^\w+$/.test(name)) return fromVariable(place, name)
  return fail(
    place,
    'expected "env:NAME", "file:PATH", or "none" for a service without keys, got something else (not shown); never write a credential itself into the configuration'
  )
}

/**
 * The upstreams and their credentials. With keys, a provider whose credential is not named has that of its usual variable. If the
 * upstreams are not named either, they are the providers whose variables are set.
 */
export const resolve = Effect.fnUntraced(function* (
  path: string,
  { credentials: sources = {}, keys, upstreams }: Pick<Settings, "credentials" | "keys" | "upstreams">
): Effect.fn.Return<Pick<Gateway.Options, "credentials" | "upstreams">, Exit.CommandError, FileSystem.FileSystem> {
  const placeOf = (name: string) => `${oneLine(path)}: credentials.${oneLine(name)}`
  const found: Record<string, Credential> = {}
  for (const [name, source] of Object.entries(sources)) found[name] = yield* read(placeOf(name), source)
  if (keys === undefined) return { upstreams, credentials: Object.keys(sources).length === 0 ? undefined : found }
  const names = Object.keys(upstreams ?? providers).filter((name) => !Object.hasOwn(found, name))
  for (const name of names) {
    const known = Object.hasOwn(usual, name) ? usual[name] : undefined
    const secret = known === undefined ? undefined : yield* variable(known)
    if (secret !== undefined) found[name] = secret
    else if (upstreams !== undefined) {
      const set = known === undefined ? "" : `set ${known}, or `
      return yield* fail(
        placeOf(name),
        `the credential of this upstream is missing: ${set}add "${oneLine(name)}": "file:PATH" to credentials`
      )
    }
  }
  if (upstreams !== undefined) return { upstreams, credentials: found }
  const served = Object.entries(providers).filter(([name]) => Object.hasOwn(found, name))
  if (served.length === 0) {
    const variables = Object.values(usual).join(", ")
    return yield* fail(
      `${oneLine(path)}: credentials`,
      `no provider has a credential: set one of ${variables}, or name their sources`
    )
  }
  return { upstreams: Object.fromEntries(served), credentials: found }
})
