/** Explains why a server cannot listen on an address. */
import * as Exit from "./exit.ts"

/** The reasons why the server cannot listen on an address, by the code of the error. */
export const refusals: Readonly<Record<string, string>> = {
  EACCES: "no permission",
  EADDRINUSE: "something listens there already",
  EADDRNOTAVAIL: "this machine has no such address",
  ENOTFOUND: "there is no host of this name"
}

/** The error of a server that cannot listen on an address. */
export const cannotListen = (address: string, why: string): Exit.CommandError =>
  Exit.failure("network", `cannot listen on ${address}: ${why}; choose another --port or --host`)
