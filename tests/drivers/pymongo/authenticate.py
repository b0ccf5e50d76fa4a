"""Authenticates as PyMongo does, and reads and writes: `authenticate.py <case> <connection string> <number>`.

Case `oidc` and `oidc-human` hand out the token that the variable TOKEN holds. Prints what the server calls the user.
Ends with 77 if this PyMongo lacks what the case takes.
"""

import os
import sys

from pymongo import MongoClient
from pymongo.errors import ConfigurationError


def token_callback(human):
    from pymongo.auth_oidc import OIDCCallback, OIDCCallbackResult

    class Callback(OIDCCallback):
        def fetch(self, context):
            assert context.version == 1
            assert not human or context.idp_info.issuer == "https://issuer"
            return OIDCCallbackResult(access_token=os.environ["TOKEN"])

    return Callback()


def main(case, uri, number):
    options = {"serverSelectionTimeoutMS": 5000}
    if case == "oidc":
        options["authMechanismProperties"] = {"OIDC_CALLBACK": token_callback(False)}
    if case == "oidc-human":
        options["authMechanismProperties"] = {"OIDC_HUMAN_CALLBACK": token_callback(True)}
    try:
        client = MongoClient(uri, **options)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 77
    with client:
        order = {"_id": number}
        client.shop.orders.insert_one(order)
        assert client.shop.orders.find_one(order) == order
        status = client.admin.command("connectionStatus")
        [user] = status["authInfo"]["authenticatedUsers"]
        print(user["db"], user["user"])
    return 0


sys.exit(main(*sys.argv[1:]))
