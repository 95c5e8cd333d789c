/** Why an assertion could not be made: the one failure of an assertion whose words reach the user. */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Option from "effect/Option"

export class ClientAssertionError extends Data.TaggedError("ClientAssertionError")<{
  readonly description: string
}> {
  override get message(): string {
    return this.description
  }
}

/** The words for a failure: a method of the user's own may fail with anything, which may hold a secret. */
export const assertionIssue = (cause: Cause.Cause<unknown>, otherwise: string): string => {
  const error = Option.getOrUndefined(Cause.failureOption(cause))
  return error instanceof ClientAssertionError ? error.description : otherwise
}
