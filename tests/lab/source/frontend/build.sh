# The front end of a laboratory that writes text files.
set -eu
echo "front end of $VERSION as $(id -un)"
mkdir -p public
echo "$VERSION $BRANCH $COMMIT" >public/built.txt
