/** The address of a Redis server, as its clients take it. */
import * as Input from "./checks.ts"

/** What is expected, for errors. */
export const expected = "an address such as redis://127.0.0.1:6379"

export const isAddress = (value: unknown): boolean =>
  typeof value === "string" && /^rediss?:$/.test(URL.parse(value)?.protocol ?? "")

/** An address may contain a password. */
export const check: Input.Check = Input.secret(expected, isAddress)
