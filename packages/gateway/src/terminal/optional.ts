/** Loads packages that only some uses need, or says how to install them. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Exit from "./exit.ts"

/** A package that is loaded when something needs it. */
export interface OptionalPackage {
  /** The feature that needs it, as the user names it: `--redis`. */
  readonly use: string
  readonly name: string
  /** The arguments of `npm install`. */
  readonly install: string
}

const isMissing = (error: unknown, name: string): boolean =>
  Predicate.hasProperty(error, "code") &&
  error.code === "ERR_MODULE_NOT_FOUND" &&
  error instanceof Error &&
  error.message.includes(`'${name}'`)

/** Loads a package. If it is not installed, fails with the line that installs it; any other failure to load is a bug. */
export const load = <A>(
  { install, name, use }: OptionalPackage,
  importing: () => Promise<A>
): Effect.Effect<A, Exit.CommandError> =>
  Effect.catch(Effect.tryPromise({ try: importing, catch: (error) => error }), (error) =>
    isMissing(error, name)
      ? Effect.fail(
          Exit.failure("usage", `${use} needs the package ${name}, which is not installed: npm install ${install}`)
        )
      : Effect.die(error)
  )
