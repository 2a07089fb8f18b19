"""Who somebody is: portal, realm, checkers, the account file."""
